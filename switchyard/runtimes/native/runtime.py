"""The native runtime: processes on this machine, in locked environments, with their own PostgreSQL."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from switchyard import bootstrap, checks, diagnosis, environments, ports
from switchyard import project as projects
from switchyard.errors import NotHealthy, StackError, still_starting
from switchyard.orchestrators import NATIVE, Orchestrator, ProcessSpec, stop_order
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.runtimes import both
from switchyard.runtimes.native import logs, plan
from switchyard.runtimes.native.checks import NativeChecks
from switchyard.runtimes.native.data import NativeData
from switchyard.runtimes.native.host import Host, located
from switchyard.runtimes.native.images import NativeImages
from switchyard.runtimes.native.processes import StartedProcess
from switchyard.runtimes.runtime import POSTGRES, OnLine, Service, WholeRuntime
from switchyard.settings import Settings

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
    beside: WholeRuntime | None = None
    project_place = "read in place"

    def __init__(self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str]) -> None:
        self.host = Host(settings, orchestrators, runner, environ)
        self.settings, self.orchestrators, self.runner, self.environ = settings, orchestrators, self.host.runner, self.host.environ
        self.base, self.postgres, self.processes = self.host.base, self.host.postgres, self.host.processes
        self.images, self.data = NativeImages(self.host), NativeData(self.host)
        self.checks = NativeChecks(self.host, self.images)
        self.oom_kills = checks.oom_kills()

    @property
    def project(self) -> Project:
        """The dbt project."""
        return self.host.project

    def require(self, *, starting: bool = True) -> str:
        """Nothing is required: `build` installs what is missing."""
        return self.name

    def running(self) -> bool:
        """Whether a process of the stack runs."""
        return self.postgres.server() is not None or any(self.processes.members(record) for record in self.processes.records())

    def services(self) -> list[Service]:
        """PostgreSQL and every process that was started, with their current health."""
        return self.host.services()

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator of which a process runs, or None."""
        return self.host.active(services)

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run here without Docker; empty where it can."""
        return self.host.unsupported(target)

    def as_started(self) -> Native:
        """The same runtime, with the ports that the running stack was started with."""
        return Native(self.settings.as_started()[0], self.orchestrators, self.runner, self.environ)

    def baked(self) -> bool:
        """There is no image without Docker."""
        return False

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""
        unseen = [record for record in self.processes.records() if not self.host.mark(record.service).exists()]
        return [record.service for record in unseen if self.host.service(record).health == "starting"]

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL if it does not run, and bring roles and databases up to date."""
        script = bootstrap.sql(self.settings, self.orchestrators.values(), projects.database(self.settings))
        self.postgres.start(script, timeout, on_line)

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace any running orchestrator with ``target``, and wait until it is healthy.

        Of the target's own processes, those that have ended are started again, as Docker restarts a container.

        Raises:
            NotHealthy: a process ended; with the last log lines.
            StillStarting: nothing has failed, but the start is not complete after ``timeout`` seconds; it continues.
        """
        kept = self._kept(target)
        if kept is None:
            folders = plan.Folders(self.settings.root, target.name)
            hint = f"Add it, or remove it under home in docker/{target.name}/{NATIVE}."
            files = [folders.file(name, hint) for name in target.native_block.home]  # before anything is stopped
            self.stop_orchestrator(on_line)
            if not self.runner.dry:
                self._prepare_home(folders, files)
        elif not self.runner.dry:
            self.processes.stop([record for record in self.processes.records() if record not in kept])  # their children may still run
        names = plan.port_names(target)
        picked = next((record.ports for record in kept or []), None) or dict(zip(names, ports.unused_ports(len(names))))
        deadline = time.monotonic() + timeout
        waiting: dict[str, ProcessSpec] = {}
        for process in target.native_block.processes:
            self._wait(
                {other: waiting.pop(other) for other in process.after if other in waiting}, target, picked, timeout, deadline, on_line
            )
            if process.service not in {record.service for record in kept or []}:
                on_line(f"starting {process.service}")
                self._start(target, process, picked)
            elif len(kept or []) == len(target.native_block.processes) and self.host.mark(process.service).exists():
                continue  # `_kept` has just checked that it is healthy
            waiting[process.service] = process
        self._wait(waiting, target, picked, timeout, deadline, on_line)

    def scale(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Do nothing: there are no workers without Docker, and `unsupported` reports that."""

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

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """One of PostgreSQL's programs as the role ``dbt``, and the variables that it needs."""
        return self.postgres.client(program, bootstrap.DBT_ROLE, *args), self.postgres.psql_env(bootstrap.DBT_ROLE)

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words``, see `rundbt.api.main`, and pass on each line of the run protocol."""
        picked = self.host.ports(orchestrator)
        # It calls the orchestrator's API, and does not run dbt.
        env = plan.process_variables(self.settings, orchestrator, orchestrator.process(orchestrator.service), picked, self.environ, None)
        argv = plan.argv(self.settings, orchestrator, [*orchestrator.native_block.run, *words], picked)
        return self.runner.follow([located(argv[0], env), *argv[1:]], on_line, env=env, errors_apart=True, only_env=True)

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the environment of the process that runs dbt."""
        process = orchestrator.process(orchestrator.dbt)
        env = plan.process_variables(self.settings, orchestrator, process, self.host.ports(orchestrator), self.environ, self.project)
        return self.runner.hand_over([located(projects.TYPED[0], env), *projects.TYPED[1:], *args], env, only_env=True)

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""
        folder = plan.Folders(self.settings.root, orchestrator.name).installed / "target" / "typed"
        return (folder / name).read_text(encoding="utf-8")

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the processes' logs on this terminal, each line after its service's name."""
        names = [POSTGRES, *([process.service for process in self.orchestrators[active].native_block.processes] if active else [])]
        both.require_service(service, names)
        files = {name: self.base / "logs" / f"{name}.log" for name in names if service in (None, name)}
        logs.show(files, follow=follow, tail=tail)
        return 0

    def sql(self, query: str | None, *, tty: bool, session: str) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``; ``session`` is its application_name.

        Raises:
            NothingActive: PostgreSQL is not running.
        """
        args = both.statement(query, up=self.postgres.server() is not None)
        argv = self.postgres.psql(bootstrap.DBT_ROLE, both.connection(projects.database(self.settings), session), *args)
        return self.runner.hand_over(argv, self.postgres.psql_env(bootstrap.DBT_ROLE))

    def _fingerprint(self, target: Orchestrator, process: ProcessSpec, picked: Mapping[str, int]) -> str:
        # Without inherited variables: `up` from another shell must not restart everything.
        env = plan.process_variables(self.settings, target, process, picked, {}, self.project)
        argv = plan.argv(self.settings, target, process.command, picked)
        return plan.launch_fingerprint(argv, env, environments.fingerprint(self.settings, target.name, self.project))

    def _kept(self, target: Orchestrator) -> list[StartedProcess] | None:
        """The target's processes that run just as they would be started now; None if one does not, or if none runs.

        Each is healthy, or still has time to become healthy: then `start` waits for it. Processes that have ended are left out.
        """
        records = self.processes.records()
        processes = {process.service: process for process in target.native_block.processes}
        kept = []
        # If one has ended, that alone may make another's health command fail: Airflow's API server reports its scheduler's health.
        all_run = all(self.processes.root(record) for record in records)
        for record in records:
            process = processes.get(record.service)
            if record.orchestrator != target.name or process is None or self.processes.being_stopped(record):
                return None
            if self.processes.root(record) is None:
                continue
            if record.fingerprint != self._fingerprint(target, process, record.ports) or record.ports != records[0].ports:
                return None
            young = self.host.young(record) and not self.host.mark(record.service).exists()
            if all_run and not young and not self.host.well(target, record):
                return None
            kept.append(record)
        return kept or None

    def _prepare_home(self, folders: plan.Folders, files: Sequence[Path]) -> None:
        shutil.rmtree(folders.home / "tmp", ignore_errors=True)
        (folders.home / "tmp").mkdir(parents=True)
        for folder in ("logs", "run"):
            (self.base / folder).mkdir(exist_ok=True)
        (plan.warehouse(self.settings.root) / self.project.database).mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folders.home / file.relative_to(folders.code))

    def _start(self, target: Orchestrator, process: ProcessSpec, picked: Mapping[str, int]) -> None:
        log = self.base / "logs" / f"{process.service}.log"
        if not self.runner.dry:
            log.write_bytes(b"")
            self.host.mark(process.service).unlink(missing_ok=True)
        self.processes.start(
            process.service, target.name,
            plan.argv(self.settings, target, process.command, picked),
            plan.process_variables(self.settings, target, process, picked, self.environ, self.project),
            cwd=plan.Folders(self.settings.root, target.name).home, log=log, ports=picked,
            fingerprint=self._fingerprint(target, process, picked),
        )  # fmt: skip

    def _wait(
        self,
        waiting: dict[str, ProcessSpec],
        target: Orchestrator,
        picked: Mapping[str, int],
        timeout: int,
        deadline: float,
        on_line: OnLine,
    ) -> None:
        """Wait until each of the processes is healthy; fail if one of the target's processes ends."""
        while waiting and not self.runner.dry:
            for record in self.host.records(target):
                if self.processes.root(record) is None:
                    killed = [record.service] if checks.oom_kills() > self.oom_kills else []
                    why = self._evidence(record.service, "ended", "")
                    raise diagnosis.start_failure(target.title, why, killed=killed, more_memory=MORE_MEMORY)
            for name, process in list(waiting.items()):
                probe = self.host.probe(target, process, picked)
                if probe.returncode == 0:
                    del waiting[name]
                    self.host.mark(name).touch()
                    on_line(f"{name} is healthy")
                    if waiting:
                        on_line(f"waiting for {', '.join(waiting)}")
                elif time.monotonic() > deadline:
                    raise self._late(target, name, probe.stderr, timeout)
            if waiting:
                time.sleep(0.2)

    def _late(self, target: Orchestrator, service: str, stderr: str, timeout: int) -> StackError:
        """The error for a process that did not become healthy in time."""
        record = next((record for record in self.host.records(target) if record.service == service), None)
        if record and self.host.young(record):
            return still_starting(target.title, timeout)
        return NotHealthy(f"{target.title} did not become healthy.", self._evidence(service, "is not healthy", stderr), "invoke logs")

    def _evidence(self, service: str, what: str, stderr: str) -> str:
        log = self.base / "logs" / f"{service}.log"
        state = f"{service} {what}" + (f" ({stderr.strip()})" if stderr.strip() else "")
        return "\n".join(diagnosis.last_lines(state, log.read_text(encoding="utf-8", errors="replace"), log))
