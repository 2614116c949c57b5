"""A laptop that sleeps: all of the stack stands still for longer than any product waits for its own parts, and then continues."""

import sys
import time
from contextlib import suppress

import psutil
import pytest

from ..interruptions import ended, healthy, typed
from ..runs import SLOW
from ..stacks import slow_model, wait_until

ASLEEP = 100  # seconds: Dagster's code server waits 30 for a sign of life, Airflow's scheduler and Prefect's server 30 to 90

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped and continued there"),
]


def sleep(stack) -> None:
    """Stop every process of the stack for a while."""
    found = stack.processes()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    time.sleep(ASLEEP)  # not for something to happen: this is what happens
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_it_continues(stack, reference, name) -> None:
    stack.on(name)
    sleep(stack)
    stack.invoke("run")
    assert healthy(stack) == name
    assert stack.hashes() == reference


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_a_run_in_progress_ends_or_continues(stack, reference, name) -> None:
    stack.on(name)
    with stack.edited("models/slow.sql", slow_model(15, ["last"])):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.sql(SLOW.format(15)) == "1", 120)
        sleep(stack)
        code, out = ended(run)
    assert code in (0, 1), out
    stack.invoke("run")
    assert healthy(stack) == name
    assert stack.hashes() == reference
