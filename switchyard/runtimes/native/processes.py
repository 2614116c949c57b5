"""The orchestrators' processes without Docker: start them detached, find them again, and stop them with all their children."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from switchyard import diagnosis
from switchyard.errors import NotHealthy, StackError
from switchyard.runner import Runner
from switchyard.runtimes.native import launch

SAME_MOMENT_S = 2.0  # seconds: creation times are rounded, and a process id is not reused so soon
INTERRUPT_TIMEOUT_S = 15  # seconds that a process has to end by itself


@dataclass(frozen=True)
class StartedProcess:
    """The record of a process, written to ``<service>.json`` at its start.

    Attributes:
        service: the compose service that it corresponds to.
        orchestrator: the orchestrator that it belongs to.
        pid: the root of its session.
        created: the creation time of that root, by the clock at that time.
        ports: the ports that were picked for the orchestrator.
        fingerprint: of what was started, see `switchyard.runtimes.native.plan.launch_fingerprint`.
        birth: on Linux, identifies the root, see `launch.birth`; elsewhere ``created`` does.
    """

    service: str
    orchestrator: str
    pid: int
    created: float
    ports: Mapping[str, int]
    fingerprint: str
    birth: str = ""


class Processes:
    """The processes whose records are in one folder.

    Args:
        folder: the folder of the records.
        runner: what starts programs.
    """

    def __init__(self, folder: Path, runner: Runner) -> None:
        self.folder, self.runner = folder, runner

    def records(self) -> list[StartedProcess]:
        """Every record, the oldest process first."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(StartedProcess(**json.loads(path.read_text(encoding="utf-8"))))
            except FileNotFoundError:
                continue  # it was just stopped
            except (ValueError, TypeError):
                path.unlink()  # not a valid record, so no process belongs to it
        return sorted(found, key=lambda record: record.created)

    def start(
        self, service: str, orchestrator: str, argv: Sequence[str], env: Mapping[str, str], *,
        cwd: Path, log: Path, ports: Mapping[str, int], fingerprint: str,
    ) -> None:  # fmt: skip
        """Start a process in its own session.

        Raises:
            NotHealthy: there is no such program.
        """
        program = shutil.which(argv[0], path=env["PATH"])
        if program is None and not self.runner.dry:
            raise NotHealthy(f"{service} could not be started.", f"There is no program {argv[0]} in its environment.", "invoke build")
        path = self.folder / f"{service}.json"
        if not self.runner.dry:
            self._stopping(service).unlink(missing_ok=True)  # left by a stop that was killed at its end
        facts = {"service": service, "orchestrator": orchestrator, "ports": dict(ports), "fingerprint": fingerprint}
        command = [program or argv[0], *argv[1:]]
        if os.name == "nt":
            process = self.runner.detach(command, log, env, cwd=cwd)
            if process:
                launch.write_record(path, facts, process.pid)
            return
        # -E ignores PYTHONPATH, which is for the command. User site-packages stay enabled: Switchyard's packages may be there.
        launcher = [sys.executable, "-E", launch.__file__, str(path), json.dumps(facts)]
        process = self.runner.detach([*launcher, *command], log, env, cwd=cwd)

        def recorded(pid: int) -> bool:
            return path.exists() and bool(json.loads(path.read_bytes())["pid"] == pid)

        while process and not recorded(process.pid):
            if process.poll() is not None and not recorded(process.pid):
                lines = diagnosis.last_lines(f"{service} has ended", log.read_text(encoding="utf-8", errors="replace"), log)
                raise NotHealthy(f"{service} could not be started.", "\n".join(lines), "invoke logs")
            time.sleep(0.01)

    def stop(self, records: Iterable[StartedProcess]) -> None:
        """End processes and everything that they started: gently, then firmly, then at once.

        The roots get SIGINT, as from Ctrl-C, on which each of the products ends its own children. All roots get it at once, as with
        `docker stop`, because most of the time is spent waiting.

        Args:
            records: what to end.

        Raises:
            StackError: a process is still running after that.
        """
        records = list(records)
        for record in records:
            self._stopping(record.service).touch()
        leaving = [(record, self.members(record), self.root(record)) for record in reversed(records)]
        _signal([root for _, _, root in leaving if root], signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        for record, members, root in leaving:
            if root:
                members = self._left_after(record, members, INTERRUPT_TIMEOUT_S)
            for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
                if members:
                    _signal(members, number)
                    members = self._left_after(record, members, 5)
            if members:
                left = ", ".join(f"{process.pid} ({process.name()})" for process in members)
                raise StackError(f"Processes of {record.service} cannot be ended.", left, "invoke down")
            (self.folder / f"{record.service}.json").unlink(missing_ok=True)
            self._stopping(record.service).unlink(missing_ok=True)

    def being_stopped(self, record: StartedProcess) -> bool:
        """Whether a command, perhaps one that was killed, has begun to stop the record's process."""
        return self._stopping(record.service).exists()

    def _stopping(self, service: str) -> Path:
        return self.folder / f"{service}.stopping"

    def root(self, record: StartedProcess) -> psutil.Process | None:
        """The process of the record, or None if it has ended, even if another program has its id by now."""
        try:
            process = psutil.Process(record.pid)
            return process if _is(process, record) and alive(process) else None
        except psutil.Error:
            return None

    def members(self, record: StartedProcess) -> list[psutil.Process]:
        """The process of the record and all its descendants, those that still run.

        After the root has ended, the descendants are found by its session id, which is not reused while one of them is left. Their
        names and environments would not identify them, because they change both.
        """
        root = self.root(record)
        if root is None and (_taken(record.pid) or _of_another_boot(record)):
            return []
        found = {root.pid: root} if root else {}
        with contextlib.suppress(psutil.Error):  # it may just be ending; the rest is found by its session
            found |= {child.pid: child for child in (root.children(recursive=True) if root else [])}
        for process in psutil.process_iter():
            if process.pid not in found and _belongs(process, record):
                found[process.pid] = process
        return [process for process in found.values() if alive(process)]

    def _left_after(self, record: StartedProcess, members: list[psutil.Process], seconds: float) -> list[psutil.Process]:
        """Wait until nothing is left of ``members`` and of the record's current members; return what is left after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            _, members = psutil.wait_procs(members, timeout=0.2)
            members = [process for process in members if alive(process)]
            if not members:
                members = self.members(record)
            if not members or time.monotonic() > deadline:
                return list({process.pid: process for process in [*members, *self.members(record)]}.values())


def alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def age(process: psutil.Process) -> float:
    """Seconds since the process was started; on Linux correct even if the clock was set meanwhile."""
    return time.time() - process.create_time()


def _is(process: psutil.Process, record: StartedProcess) -> bool:
    if record.birth:
        return launch.birth(record.pid) == record.birth
    return abs(process.create_time() - record.created) < SAME_MOMENT_S


def _of_another_boot(record: StartedProcess) -> bool:
    if record.birth:
        return not record.birth.startswith(launch.boot())
    return record.created < psutil.boot_time() - SAME_MOMENT_S


def _taken(pid: int) -> bool:
    try:
        return alive(psutil.Process(pid))
    except psutil.Error:
        return False


def _belongs(process: psutil.Process, record: StartedProcess) -> bool:
    try:
        if sys.platform != "win32":
            return os.getsid(process.pid) == record.pid
        return process.ppid() == record.pid and process.create_time() >= record.created
    except (OSError, psutil.Error):
        return False


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
