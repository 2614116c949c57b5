"""Cost: what each orchestrator takes while nothing runs, at most in a run, and what it keeps of its runs."""

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
from stack import plan
from stack.errors import StackError
from stack.runtime import POSTGRES

MEMORY = Row("idle_memory", "Idle memory", "All services and PostgreSQL, after a run; what processes share counts once (Linux).", "MiB")
CPU = Row("idle_cpu", "Idle CPU", "Processor time of all services and PostgreSQL, while nothing runs.", "% of a core")
PEAK_MEMORY = Row(
    "peak_memory",
    "Peak memory",
    "The most that all services and PostgreSQL take at one moment of `invoke run`, by a look each half second, or as soon as one is done.",
    "MiB",
)
PEAK_CPU = Row(
    "peak_cpu",
    "Peak CPU",
    "Processor time of all services and PostgreSQL between two of these looks, where it is highest.",
    "% of a core",
    better=None,
)
ROWS = Row(
    "metadata_rows",
    "Rows of metadata per 100 runs",
    "Rows that two runs add to the orchestrator's database, less those that they delete, by PostgreSQL's own count; times 50.",
)
SPACE = Row(
    "metadata_size", "Metadata per 100 runs", "By how much the tables and indexes of that database grow with two runs; times 50.", "MB"
)
FILES = Row(
    "metadata_files",
    "Files per 100 runs",
    "By how much the files grow that the service which runs dbt keeps (in Docker its volumes, natively its home folder) with two runs;"
    " times 50.",
    "MB",
)

# Rows so far, and bytes now.
METADATA = """
select coalesce(sum(n_tup_ins - n_tup_del), 0), coalesce(sum(pg_total_relation_size(relid)), 0)
from pg_stat_user_tables where schemaname = 'public'
"""
SETTLED = 3  # seconds after which a session has handed in what it counted
WINDOW = 20  # seconds; with --quick a quarter of it, as of the seconds before
RUNS = 2  # whose metadata are measured


def idle(trial: Trial) -> Iterator[Found]:
    """Wait until what a run leaves has gone, then measure."""
    part = 0.25 if trial.quick else 1
    time.sleep(memory.SETTLING * part)
    found = memory.idle(trial.stand, WINDOW * part)
    yield taken(trial, MEMORY, {name: one.memory for name, one in found.items()})
    yield taken(trial, CPU, {name: one.processor for name, one in found.items()})


def peak(trial: Trial) -> Iterator[Found]:
    """Run, and look at what is taken meanwhile."""
    run, found = memory.at_most(trial.stand, trial.run)
    if run.code:
        raise StackError(f"The run ended with exit code {run.code}.")
    yield taken(trial, PEAK_MEMORY, found.memory)
    yield taken(trial, PEAK_CPU, found.load)


def taken(trial: Trial, row: Row, found: dict[str, float]) -> Found:
    """The sum over all services; the parts are PostgreSQL, what runs dbt, and the rest, in this order."""
    first = [POSTGRES, trial.stand.orchestrators[trial.name].dbt]
    names = [*first, *sorted(found.keys() - {*first})]
    return Found(row.id, sum(found.values()), parts={"services": {name: found[name] for name in names}})


def metadata(trial: Trial) -> Iterator[Found]:
    """Run some more times, and see what is kept of that."""
    database = trial.stand.orchestrators[trial.name].database
    if database is None:
        raise StackError("It keeps nothing in PostgreSQL.")

    def counted() -> tuple[int, int, int]:
        time.sleep(SETTLED)
        rows, size = trial.stand.superuser(METADATA, database).strip().split("|")
        return int(rows), int(size), kept(trial)

    before = counted()
    for _ in range(RUNS):
        run = trial.run()
        if run.code:
            raise StackError(f"The run ended with exit code {run.code}.")
    rows, size, files = (after - earlier for after, earlier in zip(counted(), before))
    yield Found(ROWS.id, rows * 100 / RUNS, parts={"runs": RUNS, "rows": rows})
    yield Found(SPACE.id, size * 100 / RUNS / 1e6, parts={"runs": RUNS, "bytes": size})
    yield Found(FILES.id, files * 100 / RUNS / 1e6, parts={"runs": RUNS, "bytes": files})


def kept(trial: Trial) -> int:
    """The bytes of the files that last, of the service that runs dbt."""
    stand, orchestrator = trial.stand, trial.stand.orchestrators[trial.name]
    if stand.runtime == "native":
        return folder_size(plan.Folders(stand.folder, trial.name).home)
    places = [volume.split(":")[1] for volume in orchestrator.mounts[orchestrator.dbt]]
    return int(stand.execute(trial.name, ["du", "-scb", *places]).split()[-2]) if places else 0


def sentence(report: Report) -> str:
    """The section's first."""
    return f"While nothing runs, the services and PostgreSQL take {report.ranking(MEMORY)} of memory."


def pictures(report: Report) -> list[dict[str, Any]]:
    """Memory by service, of each orchestrator's measurement in the middle."""
    made = []
    for row in (MEMORY, PEAK_MEMORY):
        chosen = {title: report.typical(row, name) for name, title in report.titles.items()}
        runs = {title: found["parts"]["services"] for title, found in chosen.items() if found and "services" in found["parts"]}
        if runs:
            made.append({"kind": "bars", "title": f"{row.title} by service", "unit": row.unit, "axis": row.unit, **stacked(runs)})
    return made


def stacked(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Bars in which services of the same place have one colour: their names stand beside each other."""
    places = [" / ".join(dict.fromkeys(filter(None, names))) for names in zip_longest(*runs.values())]
    return {"parts": places, "runs": {title: dict(zip(places, services.values())) for title, services in runs.items()}}


SECTION = Section(
    "cost",
    "Cost",
    (
        Scenario("idle", idle, (MEMORY, CPU), 40),
        Scenario("peak of a run", peak, (PEAK_MEMORY, PEAK_CPU), 25, "default"),
        Scenario("metadata of two runs", metadata, (ROWS, SPACE, FILES), 60, "default", once=True),
    ),
    sentence,
    pictures,
)
