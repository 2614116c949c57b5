"""Commands that end, or are paused, after any of their steps; see `tests.faults`."""

from __future__ import annotations

import sys

import pytest

from switchyard.faults import POINTS

from ..faults import CODES, STEPS, recovers, waits

HALF_WAY = ("switch", "stopped")
# The kills of the short form, which leave the most behind; tests/docker has the one of `restore`.
SHORT = [HALF_WAY, ("backup", "dumped"), ("run", "triggered")]
CASES = [
    pytest.param(
        command,
        point,
        action,
        id=f"{command}-{point}-{action}",
        marks=() if (command, point) in SHORT and action == "kill" else pytest.mark.long,
    )
    for command, points in STEPS.items()
    for point in points
    for action in CODES
]


def test_every_point_is_a_step_of_some_command() -> None:
    assert {point for points in STEPS.values() for point in points} == set(POINTS)


@pytest.mark.parametrize(("command", "point", "action"), CASES)
def test_the_next_command_recovers_from_one_that_ended_after_any_step(stack, reference, tmp_path, command, point, action) -> None:
    recovers(stack, reference, tmp_path, command, point, action)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped and continued there")
@pytest.mark.parametrize("point", [pytest.param(one, marks=() if one == HALF_WAY[1] else pytest.mark.long) for one in STEPS["switch"]])
def test_other_commands_wait_for_a_paused_one(stack, reference, point) -> None:
    waits(stack, reference, point)
