"""The Docker runtime: the stack in containers, by Compose."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from switchyard import bootstrap, checks, console, diagnosis
from switchyard import project as projects
from switchyard.errors import NotHealthy, StackError, still_starting
from switchyard.orchestrators import Orchestrator, stop_order
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.runtimes import both
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.checks import OLD_IMAGE, OVERLAY, DockerChecks
from switchyard.runtimes.docker.data import DockerData
from switchyard.runtimes.docker.engine import Engine, rejected
from switchyard.runtimes.docker.images import DockerImages
from switchyard.runtimes.docker.override import VALUE, override
from switchyard.runtimes.runtime import POSTGRES, OnLine, Service, WholeRuntime
from switchyard.settings import Settings

NETWORK_TIMEOUT_S = 10  # for an overlay network to be removed
REJECTED = (14, 15)  # exit codes of Compose when a file is missing or invalid
MORE_MEMORY = "Raise the service's mem_limit in compose/, or close other programs, or give Docker Desktop more in Settings, Resources."


class Docker:
    """The runtime over a Docker engine.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        runner: what starts programs.
        environ: where to look for the project's variables.
    """

    name = "docker"
    beside: WholeRuntime | None = None
    project_place = "mounted read-only"

    def __init__(
        self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.engine = Engine(settings, orchestrators, runner, environ)
        self.settings, self.orchestrators, self.runner = settings, orchestrators, self.engine.runner
        self.images, self.data = DockerImages(self.engine), DockerData(self.engine)
        self.checks = DockerChecks(self.engine, self.images, self.data)

    @property
    def project(self) -> Project:
        """The dbt project."""
        return self.engine.project

    def require(self, *, starting: bool = True) -> str:
        """Make sure that an engine answers.

        Args:
            starting: check Compose's version too, which is slow and not needed for a look.

        Returns:
            The engine's version.

        Raises:
            EngineMissing: not installed, not started, or not permitted; each with its own message.
        """
        if shutil.which("docker") is None:
            raise checks.no_docker()
        found = self.runner.ask(["docker", "version", "--format", "{{.Server.Version}}"], seconds=checks.ENGINE_TIMEOUT_S)
        if found.code:
            raise checks.no_answer(found.stderr.strip())
        if starting:
            version = self.runner.ask(["docker", "compose", "version", "--short"])
            checks.compose_version(version.code, version.stdout)
        return found.stdout.strip()

    def running(self) -> bool:
        """Whether any container of the stack is up."""
        return any(service.up for service in self.services())

    def services(self) -> list[Service]:
        """Every container of the stack, as the engine reports it; none of another checkout with the same project name."""
        return self.engine.services()

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator whose containers are up, or None."""
        return self.engine.active(services)

    def as_started(self) -> Docker:
        """The same runtime: the ports of a container do not change."""
        return self

    def baked(self) -> bool:
        """Whether a container runs the dbt project in its image."""
        return any(service.baked for service in self.services())

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""
        return [service.name for service in self.services() if service.health == "starting"]

    def unsupported(self, target: Orchestrator) -> str:
        """Containers run everywhere."""
        return ""

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL if it is not healthy yet, and bring roles and databases up to date.

        Raises:
            NotHealthy: it did not become healthy within ``timeout`` seconds, or rejected the bootstrap.
        """
        running = any(service.name == POSTGRES and service.health == "healthy" for service in self.services())
        if not running:
            self.engine.own()
            self.data.make()
            self._up(argv.up_postgres(self.settings, timeout), "PostgreSQL", timeout, on_line)
        script = bootstrap.sql(self.settings, self.orchestrators.values(), projects.database(self.settings))
        done = self.runner.change(argv.on_server(self.settings, argv.psql("postgres", "--quiet")), stdin=script)
        if done.code:
            raise NotHealthy(
                "PostgreSQL rejected the bootstrap of roles and databases.", done.stderr.strip(), "invoke logs --service postgres"
            )

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace any running orchestrator with ``target``, and wait until it is healthy.

        Raises:
            NotHealthy: a service ended, or is not healthy; with the last log lines.
            StillStarting: nothing has failed, but the start is not complete after ``timeout`` seconds; it continues.
        """
        self._up(argv.up(self.settings, target, timeout, self._override(target, baked)), target.title, timeout, on_line, self._values())

    def scale(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Change the workers of ``target``, which is up, to the number in the settings; no other container is touched.

        Raises:
            NotHealthy: a new worker ended, or is not healthy; with the last log lines.
            StillStarting: nothing has failed, but not all workers are healthy after ``timeout`` seconds.
        """
        command = argv.scale(self.settings, target, timeout, self._override(target, baked))
        self._up(command, target.title, timeout, on_line, self._values())

    def _override(self, target: Orchestrator, baked: bool) -> Path | None:
        """Write the override file for a start; None if there is nothing to override."""
        file = None
        if text := override(target, self.project, baked=baked or bool(self.settings["RELEASE_FILE"])):
            file = self.settings.root / ".stack" / f"override-{target.name}.yaml"
            if not self.runner.dry:
                file.parent.mkdir(mode=0o700, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        return file

    def _values(self) -> dict[str, str]:
        """The values of the project's variables, under their names in the override."""
        return {VALUE + key: value for key, value in self.project.in_container().items()}

    def _up(self, command: list[str], title: str, timeout: int, on_line: OnLine, env: Mapping[str, str] | None = None) -> None:
        if not self.runner.dry:
            self.settings.write_for_compose()
        began, started = time.monotonic(), int(time.time())
        while True:
            # Compose's timeout begins when the last container has started, which may have waited for another's health.
            done = self.runner.follow(command, on_line, env=env, seconds=max(1, timeout - (time.monotonic() - began)))
            if done.code == 0:
                return
            if done.code in REJECTED:
                raise rejected(Path(command[command.index("-f") + 1]), done.stderr)
            # Compose also stops when the first health check gives up, which on a slow machine is before the timeout.
            slow = "is unhealthy" in done.stderr and self.engine.on_their_way(or_slow=True)
            if not slow or time.monotonic() - began >= timeout:
                break
            time.sleep(1)
        if time.monotonic() - began >= timeout and self.engine.on_their_way():
            raise still_starting(title, timeout)
        sick = [service for service in self.services() if service.health != "healthy"]
        why = [line.strip() for line in done.stderr.splitlines()[-1:]]
        for service in sick:
            logs = self.runner.ask(["docker", "logs", "--tail", "5000", service.container])
            state = f"{service.name} is {service.state} {service.health}".rstrip()
            why += diagnosis.last_lines(state, logs.stdout + logs.stderr, self._kept(service.name, logs.stdout + logs.stderr))
        raise diagnosis.start_failure(
            title, "\n".join(why), killed=self.engine.killed(started), more_memory=MORE_MEMORY, old_programs=OLD_IMAGE
        )

    def _kept(self, service: str, logs: str) -> Path:
        """Save the log of a service that does not start: a rollback removes its container."""
        path = self.settings.root / ".stack" / "logs" / f"{service}.log"
        with contextlib.suppress(OSError):  # the disk may be full, which need not be why the service does not start
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(logs, encoding="utf-8")
        return path

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """Stop and remove the orchestrator's containers; PostgreSQL's stays as it is."""
        found = [service for service in self.services() if service.orchestrator]
        groups = stop_order([service.name for service in found], self.orchestrators.values())
        argvs = [["docker", "stop", *(service.container for service in found if service.name in group)] for group in groups]
        if found:
            argvs.append(["docker", "rm", "--force", *(service.container for service in found)])
        for command in argvs:
            done = self.runner.follow(command, on_line)
            if done.code:
                raise StackError("The orchestrator could not be stopped.", done.stderr, "invoke status")

    def down(self, on_line: OnLine) -> None:
        """Remove every container and the network of the stack; the data stays in the volume."""
        self.engine.own()
        done = self.runner.follow(argv.down(self.settings, self.engine.file(self.active() or POSTGRES)), on_line)
        if done.code:
            raise StackError("The stack could not be taken down.", done.stderr, "invoke status")
        # Docker removes an overlay network a moment after it has reported that; the next `up` would find it, and then lose it.
        deadline = time.monotonic() + NETWORK_TIMEOUT_S
        while not self.runner.dry and self.engine.network() == OVERLAY:
            if time.monotonic() > deadline:
                console.advice("A worker on another machine still uses the stack's network; the next start uses it again.")
                break
            time.sleep(0.1)

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """One of PostgreSQL's programs as the role ``dbt``, in the container, over the local socket, which needs no password."""
        return argv.on_server(self.settings, [program, "--username", bootstrap.DBT_ROLE, *args]), {}

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words`` in the orchestrator's container, and pass on each line of the run protocol."""
        command = argv.execute(self.settings, orchestrator.file, orchestrator.service, [*orchestrator.run, *words])
        return self.runner.follow(command, on_line, errors_apart=True)

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the container that runs dbt."""
        command = [*projects.TYPED, *args]
        return self.runner.hand_over(argv.execute(self.settings, orchestrator.file, orchestrator.dbt, command, tty=sys.stdin.isatty()))

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""
        command = argv.execute(self.settings, orchestrator.file, orchestrator.dbt, ["cat", f"/opt/dbt/target/typed/{name}"])
        return self.engine.checked(self.runner.ask(command)).stdout

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the services' logs on this terminal."""
        self.engine.own()
        known = self.orchestrators[active] if active else None
        both.require_service(service, [POSTGRES, *(known.services if known else []), *(known.scaled if known else [])])
        file = self.engine.file(active or POSTGRES)
        command = argv.logs(self.settings, file, follow=follow, tail=tail, service=service)
        code = self.runner.hand_over(command) if sys.stdout.isatty() else self.runner.follow(command, console.plain).code
        if code in REJECTED:
            raise rejected(file)
        return code

    def sql(self, query: str | None, *, tty: bool, session: str) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``; ``session`` is its application_name.

        Raises:
            NothingActive: PostgreSQL is not running.
        """
        args = both.statement(query, up=any(service.name == POSTGRES and service.up for service in self.services()))
        command = argv.psql(bootstrap.DBT_ROLE, *args, database=both.connection(projects.database(self.settings), session))
        return self.runner.hand_over(argv.on_server(self.settings, command, tty=tty))
