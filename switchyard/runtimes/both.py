"""Code that both runtimes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from switchyard import checks, neighbours
from switchyard.errors import BadUsage, NothingActive
from switchyard.orchestrators import Orchestrator
from switchyard.settings import Settings


def memory(target: Orchestrator, workers: int, freed: int, available: int) -> str:
    """Make sure that there is enough memory for an orchestrator; see `checks.memory`.

    Args:
        target: the orchestrator.
        workers: the number of its workers.
        freed: MiB that the active orchestrator takes.
        available: bytes.
    """
    return checks.memory(target.title, target.memory_with(workers), freed, available // checks.MIB)


def taken_port(key: str, settings: Settings, environ: Mapping[str, str], publishing: Sequence[tuple[str, str]]) -> str:
    """The result of a check for a port that another program holds, which is no problem where another port will be chosen.

    Raises:
        PortInUse: the port is set, or the checkout is not new.
    """
    if neighbours.is_new(settings.root) and not environ.get(key):
        return f"{settings.port(key)} is taken; the first command chooses another port"
    raise checks.port_in_use(key, settings.port(key), publishing)


def next_build(outdated: Sequence[str], verb: str) -> str:
    """What the next start builds first, for `invoke doctor`."""
    return f"the next `invoke up` {verb} what it needs of {', '.join(outdated)}" if outdated else "current"


def require_service(name: str | None, known: Sequence[str]) -> None:
    """Make sure that there is a service called ``name``; None stands for all services.

    Raises:
        BadUsage: there is none.
    """
    if name is not None and name not in known:
        raise BadUsage(f"There is no service called {name!r}.", f"The services are {', '.join(known)}.", "invoke status")


def statement(query: str | None, *, up: bool) -> list[str]:
    """The arguments of psql for one statement; None is for an interactive psql.

    Raises:
        NothingActive: PostgreSQL is not ``up``.
    """
    if not up:
        raise NothingActive("PostgreSQL is not running.", "`sql` uses the stack's own server.", "invoke up")
    return ["--set", "ON_ERROR_STOP=1"] + ([] if query is None else ["--pset", "pager=off", "--command", query])


def connection(database: str, session: str) -> str:
    """What PostgreSQL's programs take for the name of a database, for a session with a name by which it can be ended."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}' application_name='{session}'"
