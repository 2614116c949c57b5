"""The start of each orchestrator until it is healthy, with PostgreSQL up: the very first one, and a later one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.harness import Figure, interleaved, ratio, timed
from bench.run import bare
from bench.stand import Stand


def measure(stand: Stand, rounds: int) -> Iterator[Figure]:
    """A first start finds an empty database. The machine's own measure is a bare `dbt build` in the same environment."""
    for name in stand.names():
        stand.on(name)
        bare(stand, name)

        def again(name: str = name) -> float:
            stand.on(None)
            return timed(lambda: stand.start(name))

        def build(name: str = name) -> float:
            return bare(stand, name).seconds

        found = interleaved(rounds, {"first": partial(first, stand, name), "build": build, "again": again})
        title = stand.orchestrators[name].title
        yield ratio(f"{title}: start / dbt build", found["again"], found["build"])
        yield ratio(f"{title}: first start / a later one", found["first"], found["again"])


def first(stand: Stand, name: str) -> float:
    """The seconds of a start that finds an empty database; what was in it is deleted."""
    stand.invoke("clean", "--volumes", "--no-backup", "--yes")
    stand.driver.start_postgres(300, lambda _: None)
    return timed(lambda: stand.start(name))
