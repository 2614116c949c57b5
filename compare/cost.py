"""Cost: what each orchestrator takes while nothing runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import memory
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial

MEMORY = Row("idle_memory", "Idle memory", "All services and PostgreSQL, after a run; what processes share counts once (Linux).", "MiB")
CPU = Row("idle_cpu", "Idle CPU", "Processor time of all services and PostgreSQL, while nothing runs.", "% of a core")
WINDOW = 20  # seconds; with --quick a quarter of it, as of the seconds before


def idle(trial: Trial) -> Iterator[Found]:
    """Wait until what a run leaves has gone, then measure."""
    part = 0.25 if trial.quick else 1
    time.sleep(memory.SETTLING * part)
    found, load = memory.idle(trial.stand, WINDOW * part)
    yield Found(MEMORY.id, found)
    yield Found(CPU.id, load)


def sentence(report: Report) -> str:
    """The section's first."""
    return f"While nothing runs, the services and PostgreSQL take {report.ranking(MEMORY)} of memory."


SECTION = Section("cost", "Cost", (Scenario("idle", idle, (MEMORY, CPU), 12),), sentence)
