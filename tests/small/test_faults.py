"""Each step of each command is the last one that a command comes to: killed, failed or interrupted. The next command recovers."""

from __future__ import annotations

import signal
import sys

import pytest

from stack import faults

from ..interruptions import healthy

STEPS = {
    "up": ("prepared", "postgres", "started"),
    "switch": ("prepared", "postgres", "stopped", "started"),
    "down": ("down",),
    "backup": ("dumped", "checked", "named"),
    "restore": ("read", "restored"),
    "run": ("triggered",),
}
CODES = {"error": 1, "interrupt": 130, "kill": -signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM}
# A kill leaves most behind. The others are worth their time at a switch, which undoes them.
CASES = [
    pytest.param(
        command,
        point,
        action,
        id=f"{command}-{point}-{action}",
        marks=() if action == "kill" or command == "switch" else pytest.mark.long,
    )
    for command, points in STEPS.items()
    for point in points
    for action in faults.ACTIONS
]


def test_every_point_is_a_step_of_some_command() -> None:
    assert {point for points in STEPS.values() for point in points} == set(faults.POINTS)


@pytest.mark.parametrize(("command", "point", "action"), CASES)
def test_the_next_command_recovers_from_one_that_ended_after_any_step(stack, reference, tmp_path, command, point, action) -> None:
    stack.on("dagster")
    dump, again = tmp_path / "before.dump", tmp_path / "again.dump"
    if command == "restore":
        stack.invoke("backup", str(dump))
    if command == "up":
        stack.invoke("down")
    words = {"up": ["--orch", "dagster"], "switch": ["prefect"], "backup": [str(again)], "restore": [str(dump), "--yes"]}
    done = stack.invoke(command, *words.get(command, []), code=None, SWITCHYARD_FAULT=f"{action}@{point}")
    assert done.returncode == CODES[action], done.stdout + done.stderr

    assert len(stack.orchestrators()) <= 1
    assert again.exists() == (point == "named")
    if command == "switch" and action != "kill":  # it was undone
        assert healthy(stack) == "dagster"
    active = stack.status()["orchestrator"] or "dagster"
    stack.invoke("up", "--orch", active)
    assert healthy(stack) == active
    if command == "backup" and point != "named":
        stack.invoke("backup", str(again))
        assert [path.name for path in tmp_path.iterdir()] == [again.name]
    if command == "run":
        stack.invoke("run")
    assert stack.hashes() == reference
