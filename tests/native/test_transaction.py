"""The switch as a transaction, without Docker; the bodies are shared with the Docker runtime."""

import signal

import pytest

from .. import interruptions
from ..stacks import mostly_long


@pytest.mark.parametrize("number", mostly_long([signal.SIGINT, signal.SIGTERM], signal.SIGINT), ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_switch_is_rolled_back(stack, reference, number) -> None:
    interruptions.interrupted_switch(stack, reference, number)


@pytest.mark.long
def test_a_switch_is_rolled_back_when_its_terminal_is_closed(stack, reference) -> None:
    interruptions.switch_without_a_terminal(stack, reference)


@pytest.mark.long
def test_a_switch_that_takes_too_long_is_rolled_back(stack) -> None:
    interruptions.switch_that_takes_too_long(stack)


@pytest.mark.long  # in the short form, tests/small has a similar start
def test_a_second_up_continues_with_what_is_starting(stack) -> None:
    interruptions.second_up_continues(stack)


@pytest.mark.long
def test_a_second_command_waits_for_the_first(stack) -> None:
    interruptions.second_command_waits(stack)


@pytest.mark.long  # in the short form, tests/small has a refused switch
def test_a_run_in_progress_is_not_killed_silently(stack) -> None:
    interruptions.run_in_progress(stack)
