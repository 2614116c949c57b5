"""A switch compared with the target's start alone, and with doing it by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from bench.harness import Figure, interleaved, ratio, timed
from bench.rig import Rig


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """Measure a switch to each orchestrator from the one before it."""
    possible = rig.possible()
    for new in rig.names():
        old = possible[possible.index(new) - 1]
        for name in (old, new):
            rig.on(name)  # so that its image and database exist
        found = interleaved(
            rounds,
            {
                "switch": _after(partial(rig.on, old), partial(rig.invoke, "switch", new)),
                "start": _after(partial(rig.on, None), partial(rig.start, new)),
                "by hand": _after(partial(rig.on, old), partial(rig.replace, old, new)),
            },
        )
        title = rig.orchestrators[new].title
        yield ratio(f"invoke switch to {title} / its start alone", found["switch"], found["start"], 1.15)
        yield ratio(f"invoke switch to {title} / down and up by hand", found["switch"], found["by hand"], 0.6)
        # A switch that starts the new one after the old one has stopped cannot be faster than this.
        yield ratio(f"start of {title} alone / down and up by hand", found["start"], found["by hand"])


def _after(prepare: Callable[[], object], action: Callable[[], object]) -> Callable[[], float]:
    def measured() -> float:
        prepare()
        return timed(action)

    return measured
