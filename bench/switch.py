"""A switch against the target's own start, and against doing it by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from bench.harness import Figure, interleaved, ratio, timed
from bench.stand import Stand


def measure(stand: Stand, rounds: int) -> Iterator[Figure]:
    """To each orchestrator, from the one before it."""
    possible = stand.possible()
    for new in stand.names():
        old = possible[possible.index(new) - 1]
        for name in (old, new):
            stand.on(name)  # built, and with its database
        found = interleaved(
            rounds,
            {
                "switch": _after(partial(stand.on, old), partial(stand.invoke, "switch", new)),
                "start": _after(partial(stand.on, None), partial(stand.start, new)),
                "by hand": _after(partial(stand.on, old), partial(stand.replace, old, new)),
            },
        )
        title = stand.orchestrators[new].title
        yield ratio(f"invoke switch to {title} / its start alone", found["switch"], found["start"], 1.15)
        yield ratio(f"invoke switch to {title} / down and up by hand", found["switch"], found["by hand"], 0.6)
        # Nothing can be quicker that starts the one when the other has stopped.
        yield ratio(f"start of {title} alone / down and up by hand", found["start"], found["by hand"])


def _after(prepare: Callable[[], object], action: Callable[[], object]) -> Callable[[], float]:
    def measured() -> float:
        prepare()
        return timed(action)

    return measured
