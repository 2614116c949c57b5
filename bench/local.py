"""Cosmos' local mode, with a dbt process for each node, compared with a bare `dbt build`: with the warm dbt and with the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import memory
from bench.harness import Figure, ratio
from bench.rig import Rig
from bench.run import NO_WARM_DBT, bare
from switchyard.errors import StackError

NAME = "airflow"
KNOWN = "select 1 from public.serialized_dag where dag_id = 'bench'"
# State and seconds of ended runs, the newest last.
ENDED = """
select state, extract(epoch from end_date - queued_at) from public.dag_run
where dag_id = 'bench' and state in ('success', 'failed') order by id"""
TIMEOUT_S = 1800


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """Measure in at most two rounds: one can take ten times as long as a plain build."""
    if NAME not in rig.names():
        return
    rig.on(None)
    dag = rig.folder / "docker/airflow/dags/bench.py"
    dag.write_text(Path(__file__).with_name("local_dag.py").read_text(encoding="utf-8"), encoding="utf-8")
    try:
        rig.on(NAME)  # builds an image with the added DAG
        wait_for(lambda: rig.superuser(KNOWN).strip())
        bare(rig, NAME)
        yield from _figures(rig, min(rounds, 2), "Cosmos LOCAL")
        rig.execute(NAME, ["python", "-c", NO_WARM_DBT])
        yield from _figures(rig, min(rounds, 2), "Cosmos LOCAL, plain dbt")
    finally:
        rig.on(None)
        dag.unlink()


def _figures(rig: Rig, rounds: int, label: str) -> Iterator[Figure]:
    builds, runs = [], []
    for _ in range(rounds):
        builds.append(bare(rig, NAME))
        before = memory.processor(rig)
        seconds = _run(rig)
        runs.append((seconds, memory.processor(rig) - before))
    yield ratio(f"{label}: run / dbt build", [seconds for seconds, _ in runs], [build.seconds for build in builds])
    yield ratio(f"{label}:   processor time", [processor for _, processor in runs], [build.processor for build in builds])


def _run(rig: Rig) -> float:
    """The seconds of one run, by Airflow's own clock."""

    def ended() -> list[str]:
        return rig.superuser(ENDED).split()

    before = len(ended())
    rig.execute(NAME, ["airflow", "dags", "trigger", "bench"])
    wait_for(lambda: len(ended()) > before)
    state, seconds = ended()[-1].split("|")
    if state != "success":
        raise StackError(f"The run of bench/local_dag.py ended with {state}.")
    return float(seconds)


def wait_for(true: Callable[[], object]) -> None:
    """Wait until ``true()`` returns something true.

    Raises:
        StackError: it does not within `TIMEOUT_S`.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        if time.monotonic() > deadline:
            raise StackError(f"Timed out after {TIMEOUT_S} s.")
        time.sleep(2)
