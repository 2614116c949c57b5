"""Four people at one stack without Docker; see `tests.chaos`."""

import pytest

from .. import chaos

pytestmark = pytest.mark.long


def test_many_people_at_one_stack(stack, reference) -> None:
    chaos.many_people(stack, reference)
