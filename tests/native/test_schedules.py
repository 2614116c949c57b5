"""Schedules that fall due together, without Docker: each orchestrator's own queue keeps the runs apart."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .. import runs
from ..stacks import Stack, slow_model

NAMES = ["dagster", "airflow", "prefect"] if "CHAOS" in os.environ else ["dagster"]  # each waits for a minute to come round

SECONDS = 8
TOGETHER = {'"0 5 * * *"': '"* * * * *"', '("build", "--full-refresh"), None': '("build", "--full-refresh"), "* * * * *"'}


@contextmanager
def each_minute(stack: Stack, name: str) -> Iterator[None]:
    """The stack with daily and full_refresh due every minute."""
    jobs = stack.folder / "docker/common/switchyard/jobs.py"
    text = changed = jobs.read_text(encoding="utf-8")
    for old, new in TOGETHER.items():
        assert old in changed
        changed = changed.replace(old, new)
    stack.invoke("down")
    jobs.write_text(changed, encoding="utf-8")
    try:
        stack.invoke("up", "--orch", name, SCHEDULES_ENABLED="true")
        yield
    finally:
        jobs.write_text(text, encoding="utf-8")
        stack.invoke("down", "--force")
        stack.invoke("up", "--orch", name)


@pytest.mark.parametrize("name", NAMES)
def test_schedules_that_fall_due_together_take_turns(stack, reference, name) -> None:
    began: set[str] = set()
    ended: set[str] = set()
    most = 0
    with stack.edited("models/intermediate/slow.sql", slow_model(SECONDS)), each_minute(stack, name):
        deadline = time.monotonic() + 300
        while not ended >= {"daily", "full_refresh"}:
            assert time.monotonic() < deadline, (began, ended)
            most = max(most, int(stack.sql(runs.SLOW.format(SECONDS))))
            assert most <= 1
            running = {run["job"] for run in runs.ask_runs(stack, "active_runs") if run["state"] in ("running", "started")}
            assert len(running) <= 1 or name == "airflow", running  # where a run is running while its first task waits for the pool
            began |= running
            ended |= began - running
    assert most == 1
    stack.invoke("run")
    assert stack.hashes() == reference
