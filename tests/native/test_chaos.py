"""Commands killed at random moments, and many at once, without Docker; see `tests.chaos`."""

import pytest

from .. import chaos


@pytest.mark.long
def test_random_kills_lose_nothing(stack, reference) -> None:
    chaos.random_kills(stack, reference)


@pytest.mark.long
def test_many_ups_at_once(stack, reference) -> None:
    chaos.many_ups(stack, reference)


@pytest.mark.long
def test_switches_in_a_row_with_a_run_in_between(stack, reference) -> None:
    chaos.many_switches(stack, reference)
