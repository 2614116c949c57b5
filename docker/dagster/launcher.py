"""The run launcher for workers: dagster-celery's, but it reports that a run is being canceled (docs/upstream/dagster-celery.md)."""

from __future__ import annotations

from dagster import DagsterInstance
from dagster_celery.launcher import CeleryRunLauncher


class CancelingLauncher(CeleryRunLauncher):
    """dagster-celery's launcher, but a terminated run is "canceling" first, as with Dagster's own launcher.

    Otherwise it would end as failed, and run monitoring would free its place in the queue while dbt still cancels its queries.
    """

    def terminate(self, run_id: str) -> bool:
        """Have the worker end a run."""
        with DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                return False
            instance.report_run_canceling(run)
        return super().terminate(run_id)
