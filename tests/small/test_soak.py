"""Many runs in a row by each orchestrator: what grows, and by how much per run."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil
import pytest

from ..native.conftest import ask_as
from ..stacks import files_below

RUNS = int(os.environ.get("SOAK") or 200)
FIRST = 10  # after so many runs, caches, pools and tables have reached their size
MIB = 1 << 20
# Bytes per run of seven nodes. With one run an hour, RETENTION_DAYS keeps 720 of them.
MOST = {"database": MIB, "files": MIB}


def look(stack, name: str) -> dict[str, int]:
    """Bytes of the orchestrator's database, the stack's files and its memory, and the numbers of processes and connections."""
    memory, processes = 0, 0
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            memory += process.memory_full_info().uss
            processes += 1
    native = stack.folder / ".stack" / "native"
    return {
        "database": int(ask_as(stack, "postgres", "postgres", f"select pg_database_size('{name}')")),
        "files": sum(path.stat().st_size for folder in ("data", "logs") for path in files_below(native / folder) if path.exists()),
        "memory": memory,
        "processes": processes,
        "connections": int(
            ask_as(stack, "postgres", "postgres", "select count(*) from pg_stat_activity where backend_type = 'client backend'")
        ),
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_only_the_history_of_runs_grows(stack, reference, name) -> None:
    stack.on(name)
    for _ in range(FIRST):
        stack.invoke("run")
    before = look(stack, name)
    for _ in range(RUNS):
        stack.invoke("run")
    after = look(stack, name)
    print(name, {what: (before[what], after[what], (after[what] - before[what]) // RUNS) for what in before})
    assert stack.hashes() == reference
    for what, most in MOST.items():
        assert (after[what] - before[what]) / RUNS < most, (what, before, after)
    assert after["memory"] < 1.5 * before["memory"], (before, after)
    for what in ("processes", "connections"):
        assert after[what] <= before[what] + 5, (before, after)
