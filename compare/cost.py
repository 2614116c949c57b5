"""Cost: what each orchestrator takes while nothing runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import memory
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial
from stack.errors import StackError

MEMORY = Row("idle_memory", "Idle memory", "All services and PostgreSQL, after a run; what processes share counts once (Linux).", "MiB")
CPU = Row("idle_cpu", "Idle CPU", "Processor time of all services and PostgreSQL, while nothing runs.", "% of a core")
ROWS = Row(
    "metadata_rows",
    "Rows of metadata per run",
    "Rows that a run adds to the orchestrator's database, less those that it deletes, by PostgreSQL's own count.",
)
SPACE = Row("metadata_size", "Metadata per run", "By how much the tables and indexes of that database grow with a run.", "kB")

# Rows so far, and bytes now.
METADATA = """
select coalesce(sum(n_tup_ins - n_tup_del), 0), coalesce(sum(pg_total_relation_size(relid)), 0)
from pg_stat_user_tables where schemaname = 'public'
"""
SETTLED = 3  # seconds after which a session has handed in what it counted
WINDOW = 20  # seconds; with --quick a quarter of it, as of the seconds before


def idle(trial: Trial) -> Iterator[Found]:
    """Wait until what a run leaves has gone, then measure."""
    part = 0.25 if trial.quick else 1
    time.sleep(memory.SETTLING * part)
    found, load = memory.idle(trial.stand, WINDOW * part)
    yield Found(MEMORY.id, found)
    yield Found(CPU.id, load)


def metadata(trial: Trial) -> Iterator[Found]:
    """Run once more, and see what is kept of that."""

    def counted() -> tuple[int, int]:
        time.sleep(SETTLED)
        rows, size = trial.stand.superuser(METADATA, trial.stand.orchestrators[trial.name].database).strip().split("|")
        return int(rows), int(size)

    before = counted()
    run = trial.run()
    if run.code:
        raise StackError(f"The run ended with exit code {run.code}.")
    after = counted()
    yield Found(ROWS.id, after[0] - before[0])
    yield Found(SPACE.id, (after[1] - before[1]) / 1000)


def sentence(report: Report) -> str:
    """The section's first."""
    return f"While nothing runs, the services and PostgreSQL take {report.ranking(MEMORY)} of memory."


SECTION = Section(
    "cost",
    "Cost",
    (Scenario("idle", idle, (MEMORY, CPU), 12), Scenario("metadata of a run", metadata, (ROWS, SPACE), 18, "default")),
    sentence,
)
