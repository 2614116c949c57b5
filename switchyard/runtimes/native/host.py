"""What one checkout has on this machine: its settings, PostgreSQL, and the started processes with their health."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import psutil

from switchyard import caller
from switchyard import project as projects
from switchyard.errors import BadConfiguration, EngineMissing
from switchyard.orchestrators import NATIVE, Orchestrator, ProcessSpec
from switchyard.project import Project
from switchyard.runner import Runner
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.postgres import Postgres
from switchyard.runtimes.native.processes import Processes, StartedProcess, age
from switchyard.runtimes.runtime import POSTGRES, Service
from switchyard.settings import Settings

FIRST_ANSWER_TIMEOUT_S = 120  # seconds until a service has to be healthy for the first time, like `start_period` in the compose files


class Host:
    """This machine, as far as it concerns one checkout.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        runner: what starts programs.
        environ: the caller's environment.
    """

    def __init__(self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str]) -> None:
        environ = caller.with_home(plan.base(settings.root) / "home", environ)
        if "HOME" in environ:
            runner = replace(runner, env={**runner.env, "HOME": environ["HOME"]})
        self.settings, self.orchestrators, self.runner, self.environ = settings, orchestrators, runner, environ
        self.base = plan.base(settings.root)
        self.postgres = Postgres(settings, runner, environ)
        self.processes = Processes(self.base / "run", runner)

    @cached_property
    def project(self) -> Project:
        """The dbt project."""
        return projects.load(self.settings, self.environ)

    def readable_project(self) -> Project | None:
        """The same; None if it cannot be read, for processes that do not run dbt."""
        try:
            return self.project
        except BadConfiguration:
            return None

    def services(self) -> list[Service]:
        """PostgreSQL and every process that was started, with their current health."""
        records = self.processes.records()
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self.service, records))
        return [*self._postgres_service(), *sorted(found, key=lambda service: service.name)]

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator with a running process, or None; a child counts too, even if its root has ended."""
        running = (record.orchestrator for record in self.processes.records() if self.processes.members(record))
        return next((name for name in running if name in self.orchestrators), None)

    def _postgres_service(self) -> list[Service]:
        server = self.postgres.server()
        if server:
            health = "healthy" if self.postgres.ready() else "starting"
            return [Service(str(server.pid), "", POSTGRES, "", False, "running", health, _since(server))]
        if self.postgres.crashed():
            return [Service("", "", POSTGRES, "", False, "crashed", "", "Ended unexpectedly")]
        return []

    def service(self, record: StartedProcess) -> Service:
        """The state of a process that was started."""
        root = self.processes.root(record)
        state, health, status = "crashed", "", "Ended unexpectedly"
        if root:
            state, status = "running", _since(root)
            target = self.orchestrators.get(record.orchestrator)
            well = target is not None and self.well(target, record)
            health = "healthy" if well else "starting" if self.young(record) else "unhealthy"
        return Service(str(record.pid), "", record.service, record.orchestrator, False, state, health, status)

    def well(self, target: Orchestrator, record: StartedProcess) -> bool:
        """Whether a process of ``target`` passes its health command now."""
        processes = target.native.processes if target.native else ()
        process = next((process for process in processes if process.service == record.service), None)
        return process is not None and self.probe(target, process, record.ports).returncode == 0

    def probe(self, target: Orchestrator, process: ProcessSpec, picked: Mapping[str, int]) -> subprocess.CompletedProcess[str]:
        """Run the health command of a process; it fails after 10 s."""
        env = plan.process_variables(self.settings, target, process, picked, self.environ, None)
        argv = plan.argv(self.settings, target, process.health, picked)
        try:
            return subprocess.run(
                [located(argv[0], env), *argv[1:]], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(argv, 1, "", str(error))

    def ports(self, target: Orchestrator) -> Mapping[str, int]:
        """The ports that the target's processes use among themselves; empty if none of them was started."""
        return next((record.ports for record in self.records(target)), {})

    def records(self, target: Orchestrator) -> list[StartedProcess]:
        """The records of the target's processes."""
        return [record for record in self.processes.records() if record.orchestrator == target.name]

    def young(self, record: StartedProcess) -> bool:
        """Whether the record's process still has time to become healthy."""
        root = self.processes.root(record)
        return root is not None and age(root) < FIRST_ANSWER_TIMEOUT_S

    def mark(self, service: str) -> Path:
        """A file that exists if the service has been healthy since its start: if it is not healthy any more, it is not just starting."""
        return self.base / "run" / f"{service}.healthy"

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run here without Docker; empty if it can."""
        if self.settings["RELEASE_FILE"]:
            return "A release's images run only in Docker."
        if self.settings["WORKERS"]:
            return "Workers (WORKERS in .env) run only in Docker."
        if target.native is None:
            return f"There is no docker/{target.name}/{NATIVE}."
        return target.native.unsupported.get(sys.platform, "")

    def require(self, target: Orchestrator) -> Orchestrator:
        """The orchestrator, after checking that it can run here.

        Raises:
            EngineMissing: it cannot.
        """
        if reason := self.unsupported(target):
            others = [f", or: invoke up --orch {name}" for name, other in self.orchestrators.items() if not self.unsupported(other)]
            started = f"Start Docker, then: invoke up --orch {target.name} --runtime docker"
            raise EngineMissing(f"{target.title} cannot run here without Docker.", reason, started + "".join(others[:1]))
        return target

    def existing(self, paths: Iterable[Path]) -> list[str]:
        """The folders that exist, as they are shown: relative to the checkout, or with their full path outside of it."""
        root = self.settings.root
        return [path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths if path.exists()]

    def delete(self, names: Iterable[str]) -> None:
        """Delete folders by their names from `existing`."""
        for name in names:
            if not self.runner.dry:
                shutil.rmtree(self.settings.root / name)
        self.postgres.tidy()


def located(program: str, env: Mapping[str, str]) -> str:
    """The path of the program on the PATH of ``env``."""
    return shutil.which(program, path=env["PATH"]) or program


def _since(process: psutil.Process) -> str:
    try:
        return f"Up {timedelta(seconds=round(age(process)))}, process {process.pid}"
    except psutil.NoSuchProcess:
        return "Ended just now"
