"""What Airflow does when a run has failed: the ``on_failure_callback`` of the DAGs, which its DAG processor calls."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import run_job
from switchyard import alerts
from switchyard.results import failures


def send(context: Any) -> None:
    """Send a message, but for a run that a person has cancelled, which Airflow calls failed as well.

    Args:
        context: Airflow's.
    """
    airflow = run_job.Airflow()
    dag, run_id = context["dag"].dag_id, context["run_id"]
    path = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}"
    if airflow.request("GET", path)["note"] == run_job.CANCELED:
        return
    results, url = run_job.read_results(airflow, path), run_job.page(dag, run_id)
    why = run_job.why(airflow, path, results, url)
    alerts.send(alerts.message(dag.removesuffix(run_job.CUSTOM), "Airflow", url, failures(results["nodes"]), why))
