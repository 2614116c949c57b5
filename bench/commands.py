"""The overhead of commands."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.harness import Figure, interleaved, ratio, timed
from bench.rig import Rig
from switchyard.errors import StackError
from switchyard.runtimes.docker import argv
from switchyard.runtimes.native.runtime import Native

EMPTY = 'from invoke import task\n\n\n@task\ndef nothing(c):\n    """Do nothing."""\n'
TIMES = 5  # as many measurements as rounds: each takes a fraction of a second


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """`invoke --list` and `invoke status`, with one orchestrator up, compared with the least that each has to do."""
    rig.on(rig.names()[0])
    needed, ask = _needed(rig)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tasks.py").write_text(EMPTY, encoding="utf-8")
        empty = rig.argv("--search-root", folder)
        actions: dict[str, Callable[[], object]] = {
            "list": partial(rig.invoke, "--list"),
            "empty list": partial(rig.command, [*empty, "--list"]),
            "status": partial(rig.invoke, "status"),
            "empty task": partial(rig.command, [*empty, "nothing"]),
            "needed": ask,
        }
        for action in actions.values():
            action()
        found = interleaved(TIMES * rounds, {name: partial(timed, action) for name, action in actions.items()})
    yield ratio("invoke --list / that of an empty tasks.py", found["list"], found["empty list"], 1.3)
    yield ratio(f"invoke status / {needed}", found["status"], found["needed"])
    both = [sum(pair) for pair in zip(found["empty task"], found["needed"])]
    yield ratio(f"invoke status / {needed}, and an empty Invoke task", found["status"], both)


def _needed(rig: Rig) -> tuple[str, Callable[[], object]]:
    """The least that `invoke status` has to do: ask the engine for its containers or, without Docker, check every service's health."""
    native = rig.driver
    if not isinstance(native, Native):
        return "docker ps", lambda: rig.command(argv.ps(rig.settings))

    def side_by_side() -> None:
        with ThreadPoolExecutor() as pool:
            well = pool.map(lambda record: native.host.well(rig.orchestrators[record.orchestrator], record), native.processes.records())
            if not all(well):
                raise StackError("A service that was healthy no longer is.", "", "invoke doctor")

    return "the services' health commands, side by side", side_by_side
