"""Runs in progress, without Docker."""

import pytest

from .. import runs


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_a_run_is_told_and_canceled(stack, reference, name) -> None:
    runs.canceled_run(stack, name, reference)


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_two_runs_take_turns(stack, reference, name) -> None:
    runs.two_runs_take_turns(stack, name, reference)


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_an_edit_at_any_time_is_in_the_next_run(stack, reference, name) -> None:
    runs.edits_at_any_time(stack, name, reference)


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_what_failed_runs_again(stack, reference, name) -> None:
    runs.failed_again(stack, name, reference)
