"""The checker of a chaos run's history: it finds each violation of a claim, and reports none for a history without one."""

from __future__ import annotations

import pytest

from ..history import Event, violations


def look(began: float, postgres: str | None, *orchestrators: str) -> Event:
    """A `status` command with its output."""
    services = [{"orchestrator": None, "id": postgres}] if postgres else []
    services += [{"orchestrator": name, "id": name} for name in orchestrators]
    return Event(began, began + 0.1, ("status", "--json"), 0, status={"services": services})


def run(began: float, ended: float, code: int) -> Event:
    """A run that has started."""
    return Event(began, ended, ("run",), code, "daily on Dagster\n  http://localhost:1/runs/1\n")


QUIET = [
    look(0, "a", "dagster"),
    Event(1, 5, ("switch", "prefect"), 0),
    look(6, "a", "prefect"),
    run(7, 9, 0),
    Event(8, 8.5, ("switch", "airflow"), 13, "A run is in progress"),
    Event(10, 11, ("backup",), 0),
    look(12, "a", "prefect"),
    Event(13, 15, ("down",), 0),
    look(16, None),
    Event(17, 18, ("run",), 8, "No orchestrator is active"),
    Event(19, 22, ("up", "--orch", "airflow"), -9),
    look(23, "b", "airflow"),
    run(24, 30, 1),
    Event(25, 29, ("down", "--force"), 0),
    look(31, None),
]


def test_a_history_without_violations_is_accepted() -> None:
    assert violations(QUIET) == []


@pytest.mark.parametrize(
    ("event", "why"),
    [
        pytest.param(look(6.5, "a", "prefect", "dagster"), "dagster and prefect at once", id="two orchestrators"),
        pytest.param(look(6.5, "other", "prefect"), "PostgreSQL was restarted", id="PostgreSQL stopped"),
        pytest.param(Event(10, 11, ("backup",), 0, readable=False), "cannot be restored", id="an unreadable backup"),
        pytest.param(run(6.2, 6.4, 1), "no command was allowed to end it", id="a run that fails"),
        pytest.param(run(6.2, 6.4, 10), "no command was allowed to end it", id="a run that is lost"),
        pytest.param(Event(10, 11, ("switch", "dagster"), 1), "not an exit code of this command", id="an error"),
        pytest.param(Event(10, 11, ("status",), 9), "not an exit code of this command", id="a status"),
        pytest.param(Event(10, 11, ("down",), 0, "Traceback (most"), "a traceback", id="a traceback"),
    ],
)
def test_each_violation_is_found(event, why) -> None:
    assert any(why in line for line in violations([*QUIET, event]))


def test_a_killed_backup_need_not_be_readable() -> None:
    assert violations([*QUIET, Event(10, 11, ("backup",), -9, readable=False)]) == []
