"""The interface of a runtime that the commands use."""

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
        orchestrator: the orchestrator that it belongs to; empty for PostgreSQL.
        baked: whether it runs the dbt project in its image instead of the mounted one.
        state: as in Docker (created, running, restarting, exited, paused, dead), or crashed.
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
        kind: ``image`` or ``environment``, for messages.
        in_use: whether running processes use them directly (environments), and not as a copy (a container of an image).
        cache_note: what `remove` leaves behind, and how to delete that; empty if nothing.
    """

    kind: str
    in_use: bool
    cache_note: str

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Build what ``names`` (``postgres``, or an orchestrator's name) need before they can start."""

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that have to be built, or rebuilt, first."""

    def names(self) -> list[str]:
        """The names of everything that `build` has made."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete those called ``names``."""


class Data(Protocol):
    """What lasts: volumes, or folders."""

    def names(self) -> list[str]:
        """The names of the volumes or folders with data."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete those called ``names``, with all their data."""

    def exists(self) -> bool:
        """Whether PostgreSQL has data, no matter whether it runs."""


class Checks(Protocol):
    """The checks before a start."""

    def of(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """The checks before one of ``targets`` is started: configuration, abilities, ports, memory, disk, data."""

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Run the checks that are not advice, before anything that runs is touched."""


class JobRuntime(Protocol):
    """What `switchyard.pipeline` needs: an orchestrator that is up, and a way to trigger a run in it."""

    settings: Settings
    orchestrators: Mapping[str, Orchestrator]
    runner: Runner

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator that is up, or None; ``services`` are those of a call just before, to avoid another."""

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words``, see `rundbt.api.main`, and pass on each line of the run protocol."""


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
        """Every service of the stack that runs, or that ended unexpectedly."""

    def as_started(self) -> Runtime:
        """The same runtime, with the ports that the running stack was started with."""

    def baked(self) -> bool:
        """Whether the dbt project in the image runs; this does not check the health of services."""

    def unsupported(self, target: Orchestrator) -> str:
        """Why ``target`` cannot run on this runtime here; empty if it can."""

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL if it does not run, and bring roles and databases up to date."""

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace any running orchestrator with ``target``, and wait until it is healthy."""

    def scale(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Change the workers of ``target``, which is up, to the number in the settings; no other container is touched."""

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """Stop any running orchestrator, and return when it has ended; PostgreSQL stays up."""

    def down(self, on_line: OnLine) -> None:
        """Stop everything; the data stays."""


class WarehouseRuntime(Runtime, Protocol):
    """What `switchyard.warehouse` and its users need: the same, and access to the project's data.

    Attributes:
        name: its name for ``--runtime``.
    """

    name: str

    @property
    def project(self) -> Project:
        """The dbt project; reading it fails if it cannot be run as it is."""

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """How to run ``psql``, ``pg_dump`` or ``pg_restore`` on the running server as the role ``dbt``: argv, and variables for it."""


class WholeRuntime(WarehouseRuntime, Protocol):
    """The whole interface. `Docker` and `Native`, in the packages beside this file, implement it.

    Attributes:
        project_place: how a run sees the dbt project, for `invoke status`.
        beside: the other runtime, if `choose` has found both up.
    """

    project_place: str
    beside: WholeRuntime | None

    def require(self, *, starting: bool = True) -> str:
        """Make sure that the runtime can be used, to start something, or else only to look or to stop, and return its version."""

    def running(self) -> bool:
        """Whether anything of the stack runs on it now."""

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the environment and with the connection of ``orchestrator``, which is up."""

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the services' logs on this terminal."""

    def sql(self, query: str | None, *, tty: bool, session: str) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``; ``session`` is its application_name."""
