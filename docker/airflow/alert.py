"""The ``on_failure_callback`` of the DAGs: Airflow's DAG processor calls it when a run has failed."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import run_job
from rundbt import alerts, api
from rundbt.results import failures


def send(context: Any) -> None:
    """Send a message, unless a person canceled the run, which Airflow also reports as failed.

    Args:
        context: Airflow's context of the run.
    """
    dag, run_id = context["dag"].dag_id, context["run_id"]
    path, url = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}", run_job.page(dag, run_id)
    failed: list[dict[str, Any]] = []
    try:
        airflow = run_job.AirflowApi()
        if airflow.request("GET", path)["note"] == run_job.CANCELED:
            return
        results = run_job.read_results(airflow, path)
        failed, why = failures(results["nodes"]), run_job.why(airflow, path, results, url)
    except api.ApiError as error:  # the run has still failed
        why = f"Airflow's API does not answer: {error}"
    alerts.send(alerts.message(dag.removesuffix(run_job.CUSTOM), "Airflow", url, failed, why))
