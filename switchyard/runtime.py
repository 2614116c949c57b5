"""What the tasks ask of a runtime, whichever it is, and the choice between Docker and none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from switchyard.checks import Check
from switchyard.errors import AlreadyActive, BadUsage, EngineMissing, StackError
from switchyard.orchestrators import Orchestrator
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.settings import Settings

POSTGRES = "postgres"
AUTO = "auto"
BOTH = "Both runtimes are up: the Docker engine starts its containers again when it is started. `invoke down` stops both."

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """One long-running service of the stack: a container, or a process with its children.

    Attributes:
        id: the container's short id, or the process's id.
        container: the container's name; empty without Docker.
        name: the service's name in the compose file.
        orchestrator: whose it is; empty for PostgreSQL.
        baked: whether it runs the dbt project of its image instead of the mounted one.
        state: Docker's word (created, running, restarting, exited, paused, dead), or crashed.
        health: healthy, unhealthy, starting, or empty.
        status: a sentence for a person, e.g. "Up 5 minutes (healthy)".
    """

    id: str
    container: str
    name: str
    orchestrator: str
    baked: bool
    state: str
    health: str
    status: str

    @property
    def up(self) -> bool:
        """Whether the service runs or is about to."""
        return self.state in ("running", "restarting", "created")


class Runtime(Protocol):
    """What starts and stops the stack. `switchyard.docker.Docker` and `switchyard.native.Native` are the two.

    Attributes:
        name: what ``--runtime`` calls it.
        artifact: what it builds for an orchestrator: an image, or an environment.
        cache_note: what `remove_images` leaves, and how to delete that; empty where it leaves nothing.
        project_place: how a run sees the dbt project, for `invoke status`.
        beside: the other runtime, where `choose` has found both up.
    """

    name: str
    artifact: str
    cache_note: str
    project_place: str
    settings: Settings
    orchestrators: Mapping[str, Orchestrator]
    runner: Runner
    beside: Runtime | None

    @property
    def project(self) -> Project:
        """The dbt project; reading it fails where it cannot be run as it is."""

    def require(self, *, starting: bool = True) -> str:
        """Make sure that the runtime can be used, to start something or only to look and to stop, and return its version."""

    def running(self) -> bool:
        """Whether anything of the stack runs on it at this moment."""

    def services(self) -> list[Service]:
        """Every service of the stack that runs, or that ended without being asked to."""

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator that is up, or None; ``services`` is what was returned just now, to not ask again."""

    def baked(self) -> bool:
        """Whether what runs is the dbt project of the image; asks no service how it does."""

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run on it here; empty where it can."""

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Make what ``names`` (``postgres``, or an orchestrator's name) need before they can start."""

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that `build` must make, or make again, first."""

    def checks(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """What can be checked before one of ``targets`` is started: configuration, abilities, ports, memory, disk, data."""

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Run those `checks` that are more than advice, before anything that runs is touched."""

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL where it does not run, and bring roles and databases up to date."""

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace whatever orchestrator runs by ``target``, and wait until it is healthy."""

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """Stop whatever orchestrator runs, and return when it has ended; PostgreSQL stays up."""

    def down(self, on_line: OnLine) -> None:
        """Stop everything; the data stays."""

    def volumes(self) -> list[str]:
        """The names of what holds data."""

    def remove_volumes(self, names: Sequence[str]) -> None:
        """Delete the volumes called ``names`` with all their data."""

    def images(self) -> list[str]:
        """The names of what `build` has made."""

    def remove_images(self, names: Sequence[str]) -> None:
        """Delete the images called ``names``."""

    def left_data(self) -> bool:
        """Whether PostgreSQL's data is there, as far as the checkout shows: as `has_data`, for where no engine answers."""

    def has_data(self) -> bool:
        """Whether PostgreSQL's data is there, whether it runs or not."""

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """How to run ``psql``, ``pg_dump`` or ``pg_restore`` on the running server as the role ``dbt``: argv, and variables for it."""

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words``, see `rundbt.api.main`, handing over each line of the run protocol."""

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the environment and with the connection of ``orchestrator``, which is up."""

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the services' logs on this terminal."""

    def sql(self, query: str | None, *, tty: bool) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``."""


def require_service(name: str | None, known: Sequence[str]) -> None:
    """Make sure that there is a service called ``name``; None is none.

    Raises:
        BadUsage: there is not.
    """
    if name is not None and name not in known:
        raise BadUsage(f"There is no service called {name!r}.", f"The services are {', '.join(known)}.", "invoke status")


def choose(docker: Runtime, native: Runtime, asked: str | None, *, starting: bool = False) -> tuple[Runtime, str]:
    """The runtime that a command drives.

    That is the one that is up; when none is, the one that was asked for, or that RUNTIME in ``.env`` names; ``auto`` takes
    the one that has the data, and Docker, when its engine answers, where there is none yet.

    Args:
        docker: the runtime over a Docker engine.
        native: the one without.
        asked: the value of ``--runtime``, or None.
        starting: whether the command is about to start something, so that the two must not meet.

    Returns:
        The runtime, and what a person would not expect of it; else an empty string.

    Raises:
        BadUsage: ``asked`` is no runtime, or ``auto`` is to start one of two that have data.
        AlreadyActive: the other runtime is up.
        EngineMissing: Docker was asked for, or has the data, and no engine answers.
    """
    wanted = native.settings["RUNTIME"] if asked is None else asked
    if wanted not in (AUTO, docker.name, native.name):
        raise BadUsage(f"There is no runtime called {wanted!r}.", "The runtimes are auto, docker and native.", "invoke up --runtime auto")
    missing = None
    up = [native] if native.running() else []
    if not (up and wanted == native.name):  # who wants no Docker does not wait for it
        try:
            docker.require(starting=starting)
            up += [docker] if docker.running() else []
        except EngineMissing as error:
            missing = error
        except StackError:
            if not up:
                raise
    if up:
        if (starting and (len(up) > 1 or wanted not in (AUTO, up[0].name))) or asked not in (None, AUTO, *(runtime.name for runtime in up)):
            raise AlreadyActive(
                f"The stack is up on the runtime {' and on '.join(runtime.name for runtime in up)}, and only one uses its ports at a time.",
                f"{wanted} was asked for, by --runtime or by RUNTIME in .env." if len(up) == 1 else BOTH,
                "invoke down",
            )
        chosen = docker if asked == docker.name else up[0]
        chosen.beside = next((runtime for runtime in up if runtime is not chosen), None)
        return chosen, BOTH if chosen.beside else ""
    if wanted == native.name:
        return native, ""
    if missing:
        if wanted == docker.name:
            raise missing
        if docker.left_data() and not native.has_data():
            missing.what += " The data of this stack is in Docker."
            missing.next += "\nor begin with no data: invoke up --runtime native"
            raise missing
        if docker.left_data():  # and natively there is some as well
            return native, f"{missing.what} The data that this stack has in Docker stays as it is; this is the native runtime's."
        return native, f"{missing.what} Using the native runtime." if starting else ""
    if wanted == AUTO and native.has_data():
        if not docker.has_data():
            return native, "The data of this stack is in the native runtime."
        if starting:
            either = "invoke up --runtime docker\ninvoke up --runtime native"
            raise BadUsage("Both runtimes have data of this stack.", "auto takes the one that has the data.", either)
    return docker, ""
