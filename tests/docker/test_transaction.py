"""The switch as a transaction, on a real engine; the bodies are shared with the native runtime."""

import signal

import pytest

from .. import interruptions


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_switch_is_rolled_back(stack, reference, number) -> None:
    interruptions.interrupted_switch(stack, reference, number)


@pytest.mark.long  # this and the next three do not depend on the runtime; in the short form, tests/native has them
def test_a_switch_that_takes_too_long_is_rolled_back(stack) -> None:
    interruptions.switch_that_takes_too_long(stack)


@pytest.mark.long
def test_a_second_up_continues_with_what_is_starting(stack) -> None:
    interruptions.second_up_continues(stack)


@pytest.mark.long
def test_a_second_command_waits_for_the_first(stack) -> None:
    interruptions.second_command_waits(stack)


@pytest.mark.long
def test_a_run_in_progress_is_not_killed_silently(stack) -> None:
    interruptions.run_in_progress(stack)


@pytest.mark.long
def test_services_that_a_killed_command_was_stopping_are_stopped_before_they_start_again(stack) -> None:
    stack.on("airflow")
    stack.kill_in_the_middle("down", when=lambda: not stack.started("airflow-dag-processor"))
    stack.invoke("up", "--orch", "airflow")
    assert interruptions.healthy(stack) == "airflow"
