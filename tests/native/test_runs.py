"""Runs in progress, without Docker."""

import pytest

from .. import runs


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_a_run_is_told_and_canceled(stack, reference, name) -> None:
    runs.canceled_run(stack, name, reference)
