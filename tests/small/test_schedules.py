"""Schedules that fall due together, without Docker: each orchestrator's own queue runs them one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .. import runs
from ..stacks import DAGSTER, Stack, slow_model

SECONDS = 8
TOGETHER = """\
jobs:
  daily: {dbt: build, schedule: "* * * * *"}
  full_refresh: {dbt: build --full-refresh, schedule: "* * * * *"}
"""


@contextmanager
def each_minute(stack: Stack, name: str) -> Iterator[None]:
    """The stack with daily and full_refresh due every minute."""
    stack.invoke("down")
    with stack.edited("orchestration.yml", TOGETHER):
        try:
            stack.invoke("up", "--orch", name, SCHEDULES_ENABLED="true")
            yield
        finally:
            stack.invoke("down", "--force")
    stack.invoke("up", "--orch", name)


@pytest.mark.parametrize("name", DAGSTER)  # each waits for the next full minute
def test_schedules_that_fall_due_together_take_turns(stack, reference, name) -> None:
    began: set[str] = set()
    ended: set[str] = set()
    most = 0
    with stack.edited("models/slow.sql", slow_model(SECONDS, ["last"])), each_minute(stack, name):
        deadline = time.monotonic() + 300
        while not ended >= {"daily", "full_refresh"}:
            assert time.monotonic() < deadline, (began, ended)
            most = max(most, int(stack.ask(runs.SLOW.format(SECONDS))))
            assert most <= 1
            running = {run["job"] for run in runs.ask_runs(stack, "active_runs") if run["state"] in ("running", "started")}
            assert len(running) <= 1 or name == "airflow", running  # its run is running while the first task waits for the pool
            began |= running
            ended |= began - running
    assert most == 1
    stack.invoke("run")
    assert stack.hashes() == reference
