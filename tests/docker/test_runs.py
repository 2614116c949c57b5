"""Runs in progress, in containers; each orchestrator's own ways are tested in tests/native."""

from .. import runs


def test_a_run_is_told_and_canceled(stack, reference) -> None:
    runs.canceled_run(stack, "dagster", reference)
