"""Each command is killed, fails, is interrupted or is paused after each of its steps. The next command recovers."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil

from .interruptions import ended, healthy, read_until, typed
from .stacks import Stack, wait_until

STEPS = {
    "up": ("prepared", "postgres", "started"),
    "switch": ("prepared", "postgres", "stopped", "started"),
    "down": ("down",),
    "backup": ("dumped", "checked", "named"),
    "restore": ("read", "restored"),
    "run": ("triggered",),
}
CODES = {"error": 1, "interrupt": 130, "kill": -signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM}


def recovers(stack: Stack, reference: object, folder: Path, command: str, point: str, action: str) -> None:
    """After ``action`` has ended ``command`` at ``point``, the next command finds what it left and completes it."""
    stack.on("dagster")
    dump, again = folder / "before.dump", folder / "again.dump"
    if command == "restore":
        stack.invoke("backup", "--file", str(dump))
    if command == "up":
        stack.invoke("down")
    words = {"up": ["--orch", "dagster"], "switch": ["prefect"], "backup": ["--file", str(again)], "restore": [str(dump), "--yes"]}
    done = stack.invoke(command, *words.get(command, []), code=None, SWITCHYARD_FAULT=f"{action}@{point}")
    assert done.returncode == CODES[action], done.stdout + done.stderr

    assert len(stack.orchestrators()) <= 1
    assert again.exists() == (point == "named")
    if command == "switch" and action != "kill":  # it was rolled back
        assert healthy(stack) == "dagster"
    active = stack.status()["orchestrator"] or "dagster"
    stack.invoke("up", "--orch", active)
    assert healthy(stack) == active
    if command == "backup" and point != "named":
        stack.invoke("backup", "--file", str(again))
        assert [path.name for path in folder.iterdir()] == [again.name]
    if command == "run":
        stack.invoke("run")
    assert stack.hashes() == reference


def waits(stack: Stack, reference: object, point: str) -> None:
    """While a switch is paused at ``point``, other commands see at most one orchestrator and change nothing; then it is completed."""
    stack.on("dagster")
    command = typed(stack, "switch", "prefect", SWITCHYARD_FAULT=f"pause@{point}")
    try:
        wait_until(
            lambda: psutil.Process(command.pid).status() == psutil.STATUS_STOPPED, 300
        )  # if this test runs alone, Prefect is installed first
        before = stack.orchestrators()
        assert len(before) <= 1
        second = typed(stack, "up", "--orch", "prefect")
        read_until(second, "to finish", 60)
        assert stack.orchestrators() == before
    finally:
        command.send_signal(signal.SIGCONT)
    assert ended(command)[0] == 0
    assert ended(second)[0] == 0
    assert healthy(stack) == "prefect"
    assert stack.hashes() == reference
