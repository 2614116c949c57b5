"""The same project as the products' own dbt integrations run it unless told otherwise, against a bare `dbt build`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Figure, ratio
from bench.run import bare
from bench.stand import Stand
from stack.errors import StackError

HERE = Path(__file__).parent
TITLES = {
    "airflow": "Airflow, Cosmos' default: a dbt process per node",
    "dagster": "Dagster, its default executor: a process per step",
    "prefect": "Prefect, prefect-dbt's runner: a task run per node",
}
PLACES = {"airflow": "docker/airflow/dags/bench.py", "dagster": "docker/dagster/definitions.py"}  # of what stands in this folder
FORKING = '\nif sys.platform == "linux":\n'  # from there on, Dagster's runs are forked, as they are not by default
START = {
    "airflow": ["airflow", "dags", "trigger", "bench"],
    "dagster": ["dagster", "job", "launch", "--workspace", "workspace.yaml", "--job", "bench"],
}
# Whether the job is known, and state and seconds of its runs that have ended, the newest last.
KNOWN = {"airflow": "select 1 from serialized_dag where dag_id = 'bench'", "dagster": "select 1"}
ENDED = {
    "airflow": """
        select state, extract(epoch from end_date - queued_at) from dag_run
        where dag_id = 'bench' and state in ('success', 'failed') order by id""",
    "dagster": """
        select status, end_time - extract(epoch from create_timestamp) from runs
        where pipeline_name = 'bench' and status in ('SUCCESS', 'FAILURE') order by id""",
}
PATIENCE = 1800  # seconds


def measure(stand: Stand, rounds: int, project: str = "") -> Iterator[Figure]:
    """At most two rounds: one can take ten times as long as a plain build. ``project`` is said after each name."""
    for name in (name for name in stand.names() if name in TITLES):
        with _added(stand, name):
            stand.on(name)  # with what was added, for which an image is built anew
            bare(stand, name)
            builds, rivals = [], []
            for _ in range(min(rounds, 2)):
                builds.append(bare(stand, name))
                rivals.append(_by_flow(stand) if name == "prefect" else _by_job(stand, name))
        yield ratio(f"{TITLES[name]}{project} / dbt build", rivals, builds)


@contextmanager
def _added(stand: Stand, name: str) -> Iterator[None]:
    """Have what stands in this folder among the orchestrator's definitions, which is not up before or after."""
    stand.on(None)
    if name not in PLACES:
        yield
        return
    place = stand.folder / PLACES[name]
    before = place.read_text(encoding="utf-8") if place.exists() else None
    place.write_text((before or "").partition(FORKING)[0] + (HERE / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    try:
        yield
    finally:
        stand.on(None)
        place.unlink() if before is None else place.write_text(before, encoding="utf-8")


def _by_flow(stand: Stand) -> float:
    return float(stand.execute("prefect", ["python", "-"], (HERE / "prefect.py").read_text(encoding="utf-8")).splitlines()[-1])


def _by_job(stand: Stand, name: str) -> float:
    """Start the job by the product's own command, and return how long it took by the product's own clock."""
    database = stand.orchestrators[name].database

    def ended() -> list[str]:
        return stand.superuser(ENDED[name], database).split()

    _wait_for(lambda: stand.superuser(KNOWN[name], database).strip())
    before = len(ended())
    stand.execute(name, START[name])
    _wait_for(lambda: len(ended()) > before)
    state, seconds = ended()[-1].split("|")
    if state.lower() != "success":
        raise StackError(f"The job of bench/rivals/{name}.py ended with {state}.")
    return float(seconds)


def _wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise StackError(f"Waited {PATIENCE} s in vain.")
        time.sleep(2)
