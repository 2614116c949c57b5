"""Four people use one stack without Docker; see `tests.chaos`."""

import pytest

from .. import chaos

pytestmark = pytest.mark.long


def test_several_people_use_one_stack(stack, reference) -> None:
    chaos.many_people(stack, reference)
