"""The Docker-free runtime: processes on this machine, in locked environments, over a PostgreSQL of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path

import psutil

from switchyard import bootstrap, certificates, checks, console, diagnosis, environments, plan, ports
from switchyard import project as projects
from switchyard.checks import Check
from switchyard.errors import BadConfiguration, BadUsage, EngineMissing, NotHealthy, NothingActive, StackError, still_starting
from switchyard.orchestrators import NATIVE, Orchestrator, Process, stop_order
from switchyard.postgres import Postgres
from switchyard.processes import Processes, Record, age
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.runtime import POSTGRES, OnLine, Runtime, Service, require_service
from switchyard.settings import Settings

FIRST_ANSWER_TIMEOUT_S = 120  # seconds that a service may take to its first good answer, as `start_period` in the compose files
MORE_MEMORY = "Close other programs, then: invoke up"


class Native:
    """The runtime without Docker.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        runner: what starts programs.
        environ: the caller's environment.
    """

    name = "native"
    beside: Runtime | None = None
    artifact = "environment"
    cache_note = "  uv keeps its cache, of other projects too: uv cache prune deletes it."
    project_place = "read in place"

    def __init__(self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str]) -> None:
        environ = plan.with_home(settings.root, environ)
        if "HOME" in environ:
            runner = replace(runner, env={**runner.env, "HOME": environ["HOME"]})
        self.settings, self.orchestrators, self.runner, self.environ = settings, orchestrators, runner, environ
        self.base = plan.base(settings.root)
        self.postgres = Postgres(settings, runner, environ)
        self.processes = Processes(self.base / "run", runner)
        self.oom_kills = checks.oom_kills()

    @cached_property
    def project(self) -> Project:
        """The dbt project."""
        return projects.load(self.settings, self.environ)

    def _project(self) -> Project | None:
        """The same; None where it cannot be read, for what does not run dbt."""
        try:
            return self.project
        except BadConfiguration:
            return None

    def require(self, *, starting: bool = True) -> str:
        """Nothing is needed: what is missing is installed by `build`."""
        return self.name

    def running(self) -> bool:
        """Whether a process of the stack runs."""
        return self.postgres.server() is not None or any(self.processes.members(record) for record in self.processes.records())

    def services(self) -> list[Service]:
        """PostgreSQL and every process that was started; each health is asked now."""
        records = self.processes.records()
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self._service, records))
        return [*self._postgres_service(), *sorted(found, key=lambda service: service.name)]

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator of which a process runs, or None; a child counts, whose root may have ended already."""
        running = (record.orchestrator for record in self.processes.records() if self.processes.members(record))
        return next((name for name in running if name in self.orchestrators), None)

    def baked(self) -> bool:
        """There is no image without Docker."""
        return False

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""
        unseen = [record for record in self.processes.records() if not self._mark(record.service).exists()]
        return [record.service for record in unseen if self._service(record).health == "starting"]

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run here without Docker; empty where it can."""
        if self.settings["RELEASE_FILE"]:
            return "A release is images, which run in Docker alone."
        if self.settings["WORKERS"]:
            return "Workers (WORKERS in .env) run in Docker alone."
        if target.native is None:
            return f"There is no docker/{target.name}/{NATIVE}."
        return target.native.unsupported.get(sys.platform, "")

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Install PostgreSQL, or make the environments of an orchestrator."""
        certificates.check(self.settings.root)
        if not self.runner.dry:
            self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            if name == POSTGRES:
                if not cache or not self.postgres.current():
                    self.postgres.build(cache=cache, on_line=on_line)
            else:
                target = self._supported(self.orchestrators[name])
                environments.build(self.settings, target, self.project, self.runner, self.environ, cache=cache, on_line=on_line)

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that are not installed, or were from other files than the checkout holds now."""
        return [
            name
            for name in names
            if not (self.postgres.current() if name == POSTGRES else environments.current(self.settings, name, self._project()))
        ]

    def checks(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """What can be checked before one of ``targets`` is started."""
        ports_of = [("POSTGRES_PORT", None), *((target.ui_port, target) for target in targets)]
        return [
            Check("Account", checks.account),
            Check("Folders", partial(checks.folders, self.settings.root, projects.folder(self.settings), native=True)),
            Check("dbt project", lambda: environments.describe(self.settings, self.project)),
            *(Check(target.title, partial(self._able, target)) for target in targets),
            *(Check(key, partial(self._port, key, target)) for key, target in ports_of),
            Check(f"{certificates.FOLDER}/", partial(certificates.check, self.settings.root)),
            *(Check("Memory", partial(self._memory, target)) for target in targets),
            *(Check("Disk", partial(checks.disk, place)) for place in dict.fromkeys([self.base, self.postgres.home])),
            Check("PostgreSQL", self._programs),
            Check("Data", self.postgres.require_major),
            Check("Sizes", self.postgres.sizes, advice=True),
            Check("Environments", partial(self._environments, targets), advice=True),
            Check("Leftovers", self._leftovers, advice=True),
        ]

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Check what can be checked before anything that runs is touched.

        Raises:
            BadUsage: ``baked`` without an image.
            BadConfiguration: a file in ``certs/`` is no certificate.
            EngineMissing: the orchestrator cannot run without Docker.
            PortInUse: somebody else holds a port of the target.
            OutOfMemory: there is too little memory for the target.
            NoSpace: a disk is nearly full.
            IncompatibleData: the data folder is of another PostgreSQL version.
        """
        if baked:
            raise BadUsage(
                "There is no image without Docker, so --baked means nothing.",
                "The dbt project is read where it is.",
                f"invoke up --orch {target.name}",
            )
        for check in self.checks([target]):
            if not check.advice:
                check.run()

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL where it does not run, and bring roles and databases up to date."""
        script = bootstrap.sql(self.settings, self.orchestrators.values(), projects.database(self.settings))
        self.postgres.start(script, timeout, on_line)

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace whatever orchestrator runs by ``target``, and wait until it is healthy.

        Raises:
            NotHealthy: a process ended; with the last log lines.
            StillStarting: all is well so far, but not done after ``timeout`` seconds; what was started continues.
        """
        kept = self._kept(target)
        if kept is None:
            self.stop_orchestrator(on_line)
            if not self.runner.dry:
                self._prepare_home(target)
        picked = next((record.ports for record in kept or []), None) or {name: ports.unused() for name in plan.port_names(target)}
        deadline = time.monotonic() + timeout
        waiting: dict[str, Process] = {}
        for process in target.native_block.processes:
            self._wait(
                {other: waiting.pop(other) for other in process.after if other in waiting}, target, picked, timeout, deadline, on_line
            )
            if process.service not in {record.service for record in kept or []}:
                on_line(f"starting {process.service}")
                self._start(target, process, picked)
            elif self._mark(process.service).exists():
                continue  # `_kept` has just seen that it is well
            waiting[process.service] = process
        self._wait(waiting, target, picked, timeout, deadline, on_line)

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """End every process of the orchestrator; PostgreSQL stays up."""
        on_line("stopping what runs")
        if not self.runner.dry:
            records = self.processes.records()
            for group in stop_order([record.service for record in records], self.orchestrators.values()):
                self.processes.stop([record for record in records if record.service in group])

    def down(self, on_line: OnLine) -> None:
        """End everything; the data stays."""
        self.stop_orchestrator(on_line)
        on_line("stopping PostgreSQL")
        self.postgres.stop()

    def volumes(self) -> list[str]:
        """The folders that hold data."""
        return self._existing(
            [
                self.postgres.home,
                plan.warehouse(self.settings.root),
                *(plan.Folders(self.settings.root, name).home for name in self.orchestrators),
            ]
        )

    def remove_volumes(self, names: Sequence[str]) -> None:
        """Delete the folders called ``names`` with all their data."""
        self._remove(names)

    def images(self) -> list[str]:
        """The folders that hold environments and programs."""
        made = [plan.Folders(self.settings.root, name).environment for name in (POSTGRES, *self.orchestrators)]
        return self._existing([*made, self.base / "home", *([self.postgres.programs] if self.postgres.account else [])])

    def remove_images(self, names: Sequence[str]) -> None:
        """Delete the folders called ``names``."""
        self._remove(names)

    def left_data(self) -> bool:
        """As `has_data`: no engine has to answer."""
        return self.has_data()

    def has_data(self) -> bool:
        """Whether PostgreSQL was ever started: whether its data folder is there."""
        return self.postgres.data.exists()

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """A program of PostgreSQL's as the role ``dbt``, and the variables that it needs."""
        return self.postgres.client(program, bootstrap.DBT_ROLE, *args), self.postgres.psql_env(bootstrap.DBT_ROLE)

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words``, see `rundbt.api.main`, handing over each line of the run protocol."""
        picked = self._ports(orchestrator)
        # It asks the orchestrator, and runs no dbt.
        env = plan.environment(self.settings, orchestrator, orchestrator.process(orchestrator.service), picked, self.environ, None)
        argv = plan.argv(self.settings, orchestrator, [*orchestrator.native_block.run, *words], picked)
        return self.runner.follow([located(argv[0], env), *argv[1:]], on_line, env=env, errors_apart=True, only_env=True)

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the environment of the process that runs dbt."""
        process = orchestrator.process(orchestrator.dbt)
        env = plan.environment(self.settings, orchestrator, process, self._ports(orchestrator), self.environ, self.project)
        return self.runner.hand_over([located(projects.TYPED[0], env), *projects.TYPED[1:], *args], env, only_env=True)

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""
        folder = plan.Folders(self.settings.root, orchestrator.name).environment / "target" / "typed"
        return (folder / name).read_text(encoding="utf-8")

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the processes' logs on this terminal, each line after its service's name."""
        names = [POSTGRES, *([process.service for process in self.orchestrators[active].native_block.processes] if active else [])]
        require_service(service, names)
        files = {name: self.base / "logs" / f"{name}.log" for name in names if service in (None, name)}
        width = max(map(len, files))
        positions = {}
        for name, path in files.items():
            content = path.read_bytes() if path.exists() else b""
            positions[name] = len(content)
            for line in content.decode("utf-8", "replace").splitlines()[-tail:]:
                console.plain(f"{name:<{width}}  | {line}")
        while follow:
            time.sleep(0.2)
            for name, path in files.items():
                positions[name] = self._show_new(name.ljust(width), path, positions[name])
        return 0

    def sql(self, query: str | None, *, tty: bool) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``.

        Raises:
            NothingActive: PostgreSQL is not running.
        """
        if not self.postgres.server():
            raise NothingActive("PostgreSQL is not running.", "`sql` asks the stack's own server.", "invoke up")
        args = ["--set", "ON_ERROR_STOP=1"] + ([] if query is None else ["--pset", "pager=off", "--command", query])
        argv = self.postgres.psql(bootstrap.DBT_ROLE, projects.database(self.settings), *args)
        return self.runner.hand_over(argv, self.postgres.psql_env(bootstrap.DBT_ROLE))

    # Services

    def _postgres_service(self) -> list[Service]:
        server = self.postgres.server()
        if server:
            health = "healthy" if self.postgres.ready() else "starting"
            return [Service(str(server.pid), "", POSTGRES, "", False, "running", health, _since(server))]
        if self.postgres.crashed():
            return [Service("", "", POSTGRES, "", False, "crashed", "", "Ended without being asked to")]
        return []

    def _service(self, record: Record) -> Service:
        root = self.processes.root(record)
        state, health, status = "crashed", "", "Ended without being asked to"
        if root:
            state, status = "running", _since(root)
            target = self.orchestrators.get(record.orchestrator)
            well = target is not None and self.well(target, record)
            health = "healthy" if well else "starting" if self._young(record) else "unhealthy"
        return Service(str(record.pid), "", record.service, record.orchestrator, False, state, health, status)

    def well(self, target: Orchestrator, record: Record) -> bool:
        """Whether a process of ``target`` passes its own health command now."""
        processes = target.native.processes if target.native else ()
        process = next((process for process in processes if process.service == record.service), None)
        return process is not None and self._probe(target, process, record.ports).returncode == 0

    def _probe(self, target: Orchestrator, process: Process, picked: Mapping[str, int]) -> subprocess.CompletedProcess[str]:
        env = plan.environment(self.settings, target, process, picked, self.environ, None)
        argv = plan.argv(self.settings, target, process.health, picked)
        try:
            return subprocess.run(
                [located(argv[0], env), *argv[1:]], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(argv, 1, "", str(error))

    def _ports(self, target: Orchestrator) -> Mapping[str, int]:
        """The ports that the target's processes use among themselves; none where nothing of it was started."""
        return next((record.ports for record in self._records(target)), {})

    def _records(self, target: Orchestrator) -> list[Record]:
        return [record for record in self.processes.records() if record.orchestrator == target.name]

    # Start

    def _fingerprint(self, target: Orchestrator, process: Process, picked: Mapping[str, int]) -> str:
        # Without what is inherited: `up` from another shell must not restart everything.
        env = plan.environment(self.settings, target, process, picked, {}, self.project)
        argv = plan.argv(self.settings, target, process.command, picked)
        return plan.launch_fingerprint(argv, env, environments.fingerprint(self.settings, target.name, self.project))

    def _kept(self, target: Orchestrator) -> list[Record] | None:
        """The target's processes when they, or as many as were started, run as they would be started again; else None.

        Each is well, or still in the time that a first good answer may take: then `start` continues with it.
        """
        records = self.processes.records()
        processes = {process.service: process for process in target.native_block.processes}
        for record in records:
            process = processes.get(record.service)
            if record.orchestrator != target.name or process is None or not self.processes.lasting(record):
                return None
            if record.fingerprint != self._fingerprint(target, process, record.ports) or record.ports != records[0].ports:
                return None
            young = self._young(record) and not self._mark(record.service).exists()
            if not young and not self.well(target, record):
                return None
        return records or None

    def _young(self, record: Record) -> bool:
        """Whether the record's process is still in the time that its first good answer may take."""
        root = self.processes.root(record)
        return root is not None and age(root) < FIRST_ANSWER_TIMEOUT_S

    def _mark(self, service: str) -> Path:
        """A file that says that the service, since it was started, was healthy once: one that is not any more is sick."""
        return self.base / "run" / f"{service}.healthy"

    def _prepare_home(self, target: Orchestrator) -> None:
        folders = plan.Folders(self.settings.root, target.name)
        shutil.rmtree(folders.home / "tmp", ignore_errors=True)
        (folders.home / "tmp").mkdir(parents=True)
        for folder in ("logs", "run"):
            (self.base / folder).mkdir(exist_ok=True)
        (plan.warehouse(self.settings.root) / self.project.database).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in target.native_block.home:
            shutil.copy(folders.code / name, folders.home / name)

    def _start(self, target: Orchestrator, process: Process, picked: Mapping[str, int]) -> None:
        log = self.base / "logs" / f"{process.service}.log"
        if not self.runner.dry:
            log.write_bytes(b"")
            self._mark(process.service).unlink(missing_ok=True)
        self.processes.start(
            process.service, target.name,
            plan.argv(self.settings, target, process.command, picked),
            plan.environment(self.settings, target, process, picked, self.environ, self.project),
            cwd=plan.Folders(self.settings.root, target.name).home, log=log, ports=picked,
            fingerprint=self._fingerprint(target, process, picked),
        )  # fmt: skip

    def _wait(
        self, waiting: dict[str, Process], target: Orchestrator, picked: Mapping[str, int], timeout: int, deadline: float, on_line: OnLine
    ) -> None:
        """Wait until each of the processes is healthy, as long as all of the target's run."""
        while waiting and not self.runner.dry:
            for record in self._records(target):
                if self.processes.root(record) is None:
                    killed = [record.service] if checks.oom_kills() > self.oom_kills else []
                    why = self._evidence(record.service, "ended", "")
                    raise diagnosis.start_failure(target.title, why, killed=killed, more_memory=MORE_MEMORY)
            for name, process in list(waiting.items()):
                probe = self._probe(target, process, picked)
                if probe.returncode == 0:
                    del waiting[name]
                    self._mark(name).touch()
                    on_line(f"{name} is healthy")
                    if waiting:
                        on_line(f"waiting for {', '.join(waiting)}")
                elif time.monotonic() > deadline:
                    raise self._late(target, name, probe.stderr, timeout)
            if waiting:
                time.sleep(0.2)

    def _late(self, target: Orchestrator, service: str, said: str, timeout: int) -> StackError:
        """The error for a process that is not healthy in time."""
        record = next(record for record in self._records(target) if record.service == service)
        if self._young(record):
            return still_starting(target.title, timeout)
        return NotHealthy(f"{target.title} did not become healthy.", self._evidence(service, "is not healthy", said), "invoke logs")

    def _evidence(self, service: str, what: str, said: str) -> str:
        log = self.base / "logs" / f"{service}.log"
        state = f"{service} {what}" + (f" ({said.strip()})" if said.strip() else "")
        return "\n".join(diagnosis.last_lines(state, log.read_text(encoding="utf-8", errors="replace"), log))

    # Checks

    def _supported(self, target: Orchestrator) -> Orchestrator:
        if reason := self.unsupported(target):
            others = [f", or: invoke up --orch {name}" for name, other in self.orchestrators.items() if not self.unsupported(other)]
            started = f"Start Docker, then: invoke up --orch {target.name} --runtime docker"
            raise EngineMissing(f"{target.title} cannot run here without Docker.", reason, started + "".join(others[:1]))
        return target

    def _able(self, target: Orchestrator) -> str:
        self._supported(target)
        return "runs here without Docker"

    def _programs(self) -> str:
        if self.postgres.server():
            return "runs"
        if not self.postgres.current():
            return "not installed yet"
        self.postgres.require_programs()
        return "can be started"

    def _port(self, key: str, target: Orchestrator | None) -> str:
        port = self.settings.port(key)
        if ports.free(port):
            return f"{port} is free"
        if target is None:
            # Not by who listens: for a moment that may be a process that the server has started for the question itself.
            ours = self.postgres.server() is not None and self.postgres.port() == port
        elif holder := ports.holder(port):
            ours = holder.pid in {process.pid for record in self.processes.records() for process in self.processes.members(record)}
        else:
            ours = self.active() == target.name  # the system does not show it: it is ours when we run something on it
        if ours:
            return f"{port} is held by this stack"
        raise checks.port_in_use(key, port, checks.publishers(port, self.runner))

    def _memory(self, target: Orchestrator) -> str:
        name = self.active()
        active = self.orchestrators[name] if name else None
        available = psutil.virtual_memory().available // checks.MIB
        return checks.memory(target.title, target.memory, active.memory if active else 0, available)

    def _environments(self, targets: Sequence[Orchestrator]) -> str:
        outdated = self.outdated([POSTGRES, *(target.name for target in targets)], baked=False)
        return f"the next `invoke up` makes what it needs of {', '.join(outdated)}" if outdated else "current"

    def _leftovers(self) -> str:
        dead = [record.service for record in self.processes.records() if self.processes.root(record) is None]
        dead += [POSTGRES] if self.postgres.crashed() else []
        if dead:
            raise StackError(f"Left over from a crash or a restart of the machine: {', '.join(dead)}.", "", "invoke up, or: invoke down")
        return "none"

    # Folders

    def _existing(self, paths: Iterable[Path]) -> list[str]:
        return [self._shown(path) for path in paths if path.exists()]

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.settings.root).as_posix() if path.is_relative_to(self.settings.root) else str(path)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            if not self.runner.dry:
                shutil.rmtree(self.settings.root / name)
        self.postgres.tidy()

    def _show_new(self, label: str, path: Path, position: int) -> int:
        """Print what was added to a log since ``position``, as far as its lines are complete; return the new position."""
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position = 0  # it was started again
        if size == position:
            return position
        with open(path, "rb") as file:
            file.seek(position)
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        for line in complete.decode("utf-8", "replace").splitlines():
            console.plain(f"{label}  | {line}")
        return position + len(complete)


def located(program: str, env: Mapping[str, str]) -> str:
    """Where the program is on the PATH of ``env``."""
    return shutil.which(program, path=env["PATH"]) or program


def _since(process: psutil.Process) -> str:
    return f"Up {timedelta(seconds=round(age(process)))}, process {process.pid}"
