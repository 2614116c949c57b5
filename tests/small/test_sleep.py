"""A laptop that sleeps, without Docker; see `tests.sleep`."""

import sys

import pytest

from .. import sleep

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped and continued there"),
    pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"]),
]


def test_the_stack_continues(stack, reference, name) -> None:
    sleep.idle(stack, reference, name)


def test_a_run_in_progress_ends_or_continues(stack, reference, name) -> None:
    sleep.in_a_run(stack, reference, name, ["last"])
