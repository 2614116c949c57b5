"""The start of each orchestrator until it is healthy, with PostgreSQL up: the very first one, and a later one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.harness import Figure, interleaved, ratio, timed
from bench.rig import Rig
from bench.run import bare


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """A first start has an empty database. A bare `dbt build` in the same environment serves as the measure of the machine's speed."""
    for name in rig.names():
        rig.on(name)
        bare(rig, name)

        def again(name: str = name) -> float:
            rig.on(None)
            return timed(lambda: rig.start(name))

        def build(name: str = name) -> float:
            return bare(rig, name).seconds

        found = interleaved(rounds, {"first": partial(first, rig, name), "build": build, "again": again})
        title = rig.orchestrators[name].title
        yield ratio(f"{title}: start / dbt build", found["again"], found["build"])
        yield ratio(f"{title}: first start / a later one", found["first"], found["again"])


def first(rig: Rig, name: str) -> float:
    """The seconds of a start with an empty database; its previous content is deleted."""
    rig.invoke("clean", "--volumes", "--no-backup", "--yes")
    rig.driver.start_postgres(300, lambda _: None)
    return timed(lambda: rig.start(name))
