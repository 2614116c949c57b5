"""A laptop that sleeps, with its containers; see `tests.sleep`."""

import pytest

from .. import sleep
from ..stacks import LAST

pytestmark = pytest.mark.long


def test_the_stack_continues(stack, reference, orchestrator) -> None:
    sleep.idle(stack, reference, orchestrator)


def test_a_run_in_progress_ends_or_continues(stack, reference, orchestrator) -> None:
    sleep.in_a_run(stack, reference, orchestrator, LAST)
