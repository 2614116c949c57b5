"""Runs in progress, without Docker."""

import pytest

from .. import runs


@pytest.fixture(scope="module", params=["dagster", "airflow", "prefect"])
def name(request) -> str:
    """An orchestrator. All tests of one follow one another, which spares switches."""
    return request.param


def test_a_run_is_shown_and_canceled(stack, reference, name) -> None:
    runs.canceled_run(stack, name, reference)


def test_two_runs_take_turns(stack, reference, name) -> None:
    runs.two_runs_take_turns(stack, name, reference)


def test_an_edit_at_any_time_is_in_the_next_run(stack, reference, name) -> None:
    runs.edits_at_any_time(stack, name, reference)


def test_what_failed_runs_again(stack, reference, name) -> None:
    runs.failed_again(stack, name, reference)


def test_a_run_has_options_of_its_own(stack, reference, name) -> None:
    runs.options_of_a_run(stack, name)
    assert stack.hashes() == reference
