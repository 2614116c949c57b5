"""Commands killed at random moments, and many at once, on a real engine; see `tests.chaos`."""

import pytest

from .. import chaos

pytestmark = pytest.mark.long


def test_random_kills_lose_nothing(stack, reference) -> None:
    chaos.random_kills(stack, reference)


def test_many_ups_at_once(stack, reference) -> None:
    chaos.many_ups(stack, reference)


def test_switches_in_a_row_with_a_run_in_between(stack, reference) -> None:
    chaos.many_switches(stack, reference)


def test_several_people_use_one_stack(stack, reference) -> None:
    chaos.many_people(stack, reference)
