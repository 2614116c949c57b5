"""Cost: what each orchestrator uses while nothing runs and at most in a run, and what it keeps of its runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from bench import memory
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.start import folder_size
from compare.trial import Trial
from switchyard.errors import StackError
from switchyard.runtimes.native import plan
from switchyard.runtimes.runtime import POSTGRES

MEMORY = Row(
    "idle_memory",
    "Idle memory",
    "All services and PostgreSQL, after a run; memory that processes share counts once (Linux). Switchyard's own processes are"
    " included: the warm dbt of Airflow and Dagster, and the guard in front of Dagster's page.",
    "MiB",
    None,
)
CPU = Row(
    "idle_cpu",
    "Idle CPU",
    "CPU time of the same processes over a minute, while nothing runs. Airflow reads its DAGs again once a minute.",
    "% of a core",
)
PEAK_MEMORY = Row(
    "peak_memory",
    "Peak memory",
    "The most that all services and PostgreSQL use at one moment of `invoke run`, sampled about every half second.",
    "MiB",
)
PEAK_CPU = Row(
    "peak_cpu",
    "Peak CPU",
    "The highest CPU time of all services and PostgreSQL between two of these samples.",
    "% of a core",
    better=None,
)
ROWS = Row(
    "metadata_rows",
    "Rows of metadata per 100 runs",
    "Rows that the same run adds to the orchestrator's database, minus those that it deletes, by PostgreSQL's own count; times 100.",
)
SPACE = Row("metadata_size", "Metadata per 100 runs", "The growth of that database's tables and indexes in that run; times 100.", "MB")
FILES = Row(
    "metadata_files",
    "Files per 100 runs",
    "The growth, in that run, of the files of the service that runs dbt (in Docker its volumes, natively its home folder); times 100.",
    "MB",
)

# Rows so far, and current bytes.
METADATA = """
select coalesce(sum(n_tup_ins - n_tup_del), 0), coalesce(sum(pg_total_relation_size(relid)), 0)
from pg_stat_user_tables where schemaname = 'public'
"""
SETTLED_S = 11  # seconds: in PostgreSQL 16, an idle session reports its counts after 10 (PGSTAT_IDLE_INTERVAL)
WINDOW_S = 60  # seconds: Airflow reads its DAGs again once a minute
LOOK_S = 1  # seconds between two samples of the memory


def idle(trial: Trial) -> Iterator[Found]:
    """Wait until processes and connections of a run have ended, then measure."""
    time.sleep(memory.SETTLING_S)
    yield taken(trial, MEMORY, {name: one.memory for name, one in memory.idle(trial.rig, LOOK_S).items()})


def idle_load(trial: Trial) -> Iterator[Found]:
    """Measure the CPU time while nothing runs."""
    found = memory.idle(trial.rig, WINDOW_S)
    yield taken(trial, CPU, {name: one.processor for name, one in found.items()})


def one_run(trial: Trial) -> Iterator[Found]:
    """Run, measure what is used meanwhile, and what is kept of the run."""
    before = metadata(trial)
    run, found = memory.at_most(trial.rig, trial.run)
    if run.code:
        raise StackError(f"The run ended with exit code {run.code}.")
    yield taken(trial, PEAK_MEMORY, found.memory)
    yield taken(trial, PEAK_CPU, found.load)
    for row, unit, earlier, after in zip((FILES, ROWS, SPACE), (1e6, 1, 1e6), before, metadata(trial)):
        yield Found(row.id, 100 * (after - earlier) / unit, parts={"of one run": after - earlier})
    if trial.rig.orchestrators[trial.name].database is None:
        yield from (Found(row.id, why="it keeps nothing in PostgreSQL") for row in (ROWS, SPACE))


def taken(trial: Trial, row: Row, found: dict[str, float]) -> Found:
    """The sum over all services; the parts are PostgreSQL, the service that runs dbt, and the others, in this order."""
    first = [POSTGRES, trial.rig.orchestrators[trial.name].dbt]
    names = [*first, *sorted(found.keys() - {*first})]
    return Found(row.id, sum(found.values()), parts={"services": {name: found[name] for name in names}})


def metadata(trial: Trial) -> list[int]:
    """The bytes in files that are kept of runs; then, if it has a database in PostgreSQL, the rows so far and bytes there."""
    database = trial.rig.orchestrators[trial.name].database
    if database is None:
        return [kept(trial)]
    time.sleep(SETTLED_S)
    return [kept(trial), *map(int, trial.rig.superuser(METADATA, database).strip().split("|"))]


def kept(trial: Trial) -> int:
    """The bytes of the persistent files of the service that runs dbt."""
    rig, orchestrator = trial.rig, trial.rig.orchestrators[trial.name]
    if rig.runtime == "native":
        return folder_size(plan.Folders(rig.folder, trial.name).home)
    places = [volume.split(":")[1] for volume in orchestrator.mounts[orchestrator.dbt]]
    return int(rig.execute(trial.name, ["du", "-scb", *places]).split()[-2]) if places else 0


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return f"Memory of the services and PostgreSQL while nothing runs, Switchyard's warm dbt and guard included: {report.ranking(MEMORY)}."


def pictures(report: Report) -> list[dict[str, Any]]:
    """Memory and CPU time by service, of each orchestrator's median measurement."""
    made = []
    for row in (MEMORY, PEAK_MEMORY, CPU, PEAK_CPU):
        typical = {title: report.typical(row, name) for name, title in report.titles.items()}
        runs = {title: found["parts"]["services"] for title, found in typical.items() if found and "services" in found["parts"]}
        if runs:
            made.append({"kind": "bars", "title": f"{row.title} by service", "unit": row.unit, "axis": row.unit, **stacked(runs)})
    return made


def stacked(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Bars in which the services at the same position have the same colour, and their names are in one label."""
    places = [" / ".join(dict.fromkeys(filter(None, names))) for names in zip_longest(*runs.values())]
    return {"parts": places, "runs": {title: dict(zip(places, services.values())) for title, services in runs.items()}}


SECTION = Section(
    "cost",
    "Cost",
    (
        Scenario("idle memory", idle, (MEMORY,), 22),
        Scenario("idle CPU", idle_load, (CPU,), 60, "default", once=True),
        Scenario("a run", one_run, (PEAK_MEMORY, PEAK_CPU, ROWS, SPACE, FILES), 48, "default", once=True),
    ),
    sentence,
    pictures,
)
