"""What the commands ask of a runtime, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from switchyard.checks import Check
from switchyard.orchestrators import Orchestrator
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.settings import Settings

POSTGRES = "postgres"

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


class Images(Protocol):
    """What is built before a start: images, or environments.

    Attributes:
        kind: what one is called.
        in_use: whether what runs is in one itself, and not in what was made of it.
        cache_note: what `remove` leaves, and how to delete that; empty where it leaves nothing.
    """

    kind: str
    in_use: bool
    cache_note: str

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Make what ``names`` (``postgres``, or an orchestrator's name) need before they can start."""

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that `build` must make, or make again, first."""

    def names(self) -> list[str]:
        """The names of what `build` has made."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete those called ``names``."""


class Data(Protocol):
    """What lasts: volumes, or folders."""

    def names(self) -> list[str]:
        """The names of what holds data."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete what is called ``names``, with all its data."""

    def exists(self) -> bool:
        """Whether PostgreSQL's data is there, whether it runs or not."""


class Checks(Protocol):
    """What can be found out before anything is started."""

    def of(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """What can be checked before one of ``targets`` is started: configuration, abilities, ports, memory, disk, data."""

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Run those that are more than advice, before anything that runs is touched."""


class JobRuntime(Protocol):
    """What `switchyard.pipeline` needs: an orchestrator that is up, and a way to ask it for a run."""

    settings: Settings
    orchestrators: Mapping[str, Orchestrator]
    runner: Runner

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator that is up, or None; ``services`` is what was returned just now, to not ask again."""

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words``, see `rundbt.api.main`, handing over each line of the run protocol."""


class Runtime(JobRuntime, Protocol):
    """What `switchyard.lifecycle` needs: it starts and stops the stack."""

    @property
    def images(self) -> Images:
        """What is built before a start."""

    @property
    def data(self) -> Data:
        """What lasts."""

    @property
    def checks(self) -> Checks:
        """What can be found out before a start."""

    def services(self) -> list[Service]:
        """Every service of the stack that runs, or that ended without being asked to."""

    def as_started(self) -> Runtime:
        """The same, with the ports on which what is up was started."""

    def baked(self) -> bool:
        """Whether what runs is the dbt project of the image; asks no service how it does."""

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run on it here; empty where it can."""

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL where it does not run, and bring roles and databases up to date."""

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace whatever orchestrator runs by ``target``, and wait until it is healthy."""

    def scale(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Bring the workers of ``target``, which is up, to the number in the settings; no other container is touched."""

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """Stop whatever orchestrator runs, and return when it has ended; PostgreSQL stays up."""

    def down(self, on_line: OnLine) -> None:
        """Stop everything; the data stays."""


class WarehouseRuntime(Runtime, Protocol):
    """What `switchyard.warehouse` and those that use it need: the same, and a way to the project's data.

    Attributes:
        name: what ``--runtime`` calls it.
    """

    name: str

    @property
    def project(self) -> Project:
        """The dbt project; reading it fails where it cannot be run as it is."""

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """How to run ``psql``, ``pg_dump`` or ``pg_restore`` on the running server as the role ``dbt``: argv, and variables for it."""


class WholeRuntime(WarehouseRuntime, Protocol):
    """All that a command can ask of one. `Docker` and `Native` in the packages beside this file are the two.

    Attributes:
        project_place: how a run sees the dbt project, for `invoke status`.
        beside: the other runtime, where `choose` has found both up.
    """

    project_place: str
    beside: WholeRuntime | None

    def require(self, *, starting: bool = True) -> str:
        """Make sure that the runtime can be used, to start something or only to look and to stop, and return its version."""

    def running(self) -> bool:
        """Whether anything of the stack runs on it at this moment."""

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the environment and with the connection of ``orchestrator``, which is up."""

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the services' logs on this terminal."""

    def sql(self, query: str | None, *, tty: bool) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``."""
