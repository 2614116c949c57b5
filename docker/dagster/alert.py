"""A sensor that sends an alert when a run has failed; Dagster's daemon has the code server evaluate it."""

from __future__ import annotations

import os

from dagster import DefaultSensorStatus, RunFailureSensorContext, run_failure_sensor

import report
from rundbt import alerts, results

POLL_S = 10  # seconds between two evaluations; Dagster's default is 30
LATEST = 50  # the newest observations; runs take turns, so those of this run, one for each dbt command, are among them


@run_failure_sensor(
    name="alert",
    description="Sends a message to ALERT_WEBHOOK when a run has failed.",
    minimum_interval_seconds=POLL_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def alert(context: RunFailureSensorContext) -> None:
    """Send a message; Dagster evaluates this once for each failed run, and not for canceled ones."""
    run = context.dagster_run
    observed = (record.event_log_entry for record in context.instance.fetch_observations(report.RESULTS, LATEST).records)
    mine = (entry.asset_observation for entry in observed if entry.run_id == run.run_id)
    failed = results.failures([node for one in mine for node in one.metadata["dbt"].value])
    failures = [event.step_failure_data for event in context.get_step_failure_events()]
    why = next((data.user_failure_data.description for data in failures if data.user_failure_data), None) or context.failure_event.message
    url = f"{os.environ['SWITCHYARD_UI_URL']}/runs/{run.run_id}"
    alerts.send(alerts.message(run.job_name, "Dagster", url, failed, why or ""))
