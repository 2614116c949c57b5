"""The four jobs, under the same names in every orchestrator."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One job: what dbt is asked to do, and when.

    Attributes:
        name: the name in every orchestrator and in ``invoke run --job``.
        dbt_args: the dbt command line after ``dbt``.
        cron: five-field cron expression in UTC, or None for a job that is only started by hand.
        description: one sentence for the orchestrator's page.
    """

    name: str
    dbt_args: tuple[str, ...]
    cron: str | None
    description: str


JOBS = {
    job.name: job
    for job in (
        Job("daily", ("build",), "0 5 * * *", "Load the seeds, build every model and snapshot, run every test."),
        Job("smoke", ("test", "--select", "tag:smoke"), "15 * * * *", "Run the few tests that tell whether the shop is sane."),
        Job("freshness", ("source", "freshness"), "30 */6 * * *", "Check how old the raw tables are."),
        Job("full_refresh", ("build", "--full-refresh"), None, "Rebuild everything, incremental models included, from nothing."),
    )
}


def schedules_enabled() -> bool:
    """Whether SCHEDULES_ENABLED asks for the schedules; they are off by default."""
    return os.environ.get("SCHEDULES_ENABLED", "false").strip().lower() in ("1", "true", "yes", "on")
