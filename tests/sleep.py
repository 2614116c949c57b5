"""A laptop that sleeps: the whole stack is stopped for longer than any product waits for its own parts, and then continues."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .interruptions import ended, typed, wait_for_health
from .runs import SLOW
from .stacks import Stack, slow_model, wait_until

ASLEEP = 100  # seconds: Dagster's code server waits 30 for a heartbeat, Airflow's scheduler and Prefect's server 30 to 90


def sleep(stack: Stack) -> None:
    """Suspend every process of the stack for a while."""
    with stack.frozen():
        time.sleep(ASLEEP)  # this is the sleep that is tested, not a wait for something


def idle(stack: Stack, reference: object, name: str) -> None:
    """A stack that slept between runs then runs the project, and is healthy."""
    stack.on(name)
    sleep(stack)
    stack.invoke("run")
    assert wait_for_health(stack) == name
    assert stack.hashes() == reference


def in_a_run(stack: Stack, reference: object, name: str, last: Sequence[str]) -> None:
    """A run that slept ends, with success or failure, and the next one succeeds. The slow model depends on those in ``last``."""
    stack.on(name)
    with stack.edited("models/slow.sql", slow_model(15, last)):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(SLOW.format(15)) == "1", 300)
        sleep(stack)
        code, out = ended(run)
    assert code in (0, 1), out
    stack.invoke("run")
    assert wait_for_health(stack) == name
    assert stack.hashes() == reference
