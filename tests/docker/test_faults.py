"""Commands that are killed or paused after any of their steps, in Docker; see `tests.faults`."""

from __future__ import annotations

import pytest

from ..faults import STEPS, recovers, waits

SHORT = [("restore", "restored")]  # in the short form, tests/small has others, natively
CASES = [
    pytest.param(command, point, marks=() if (command, point) in SHORT else pytest.mark.long)
    for command, points in STEPS.items()
    for point in points
]


@pytest.mark.parametrize(("command", "point"), CASES)
def test_the_next_command_recovers_from_one_that_was_killed_after_any_step(stack, reference, tmp_path, command, point) -> None:
    recovers(stack, reference, tmp_path, command, point, "kill")


@pytest.mark.long
@pytest.mark.parametrize("point", STEPS["switch"])
def test_other_commands_wait_for_a_paused_one(stack, reference, point) -> None:
    waits(stack, reference, point)
