"""``python run_job.py JOB``: start a job over Dagster's GraphQL API, follow it, and print what happens as JSON lines.

With ``--active`` or ``--cancel`` in the place of the job, it tells or cancels the runs in progress; see `switchyard.api`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from switchyard import api, project, results
from switchyard.jobs import JOBS
from webserver import ask

LOCATION = "shop"

LOAD = """
query ($name: String!) {
  workspaceLocationEntryOrError(name: $name) {
    ... on WorkspaceLocationEntry {
      loadStatus
      locationOrLoadError {
        ... on RepositoryLocation {repositories {jobs {name tags {key value}}}}
        ... on PythonError {className message causes {message}}
      }
    }
    ... on PythonError {className message}
  }
}"""

RELOAD = "mutation ($name: String!) {reloadRepositoryLocation(repositoryLocationName: $name) {__typename}}"

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on Error {message}
  }
}"""

EVENTS = """
query ($run: ID!, $after: String) {
  logsForRun(runId: $run, afterCursor: $after, limit: 200) {
    ... on EventConnection {
      cursor
      events {
        __typename
        ... on MessageEvent {message timestamp}
        ... on MaterializationEvent {metadataEntries {...record}}
        ... on ObservationEvent {metadataEntries {...record}}
        ... on AssetCheckEvaluationEvent {evaluation {metadataEntries {...record}}}
        ... on ExecutionStepFailureEvent {error {message} failureMetadata {description}}
      }
    }
    ... on Error {message}
  }
}
fragment record on JsonMetadataEntry {label jsonString}"""

ACTIVE = """
query {
  runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
    ... on Runs {results {runId jobName status}}
    ... on Error {message}
  }
}"""

TERMINATE = """
mutation ($runs: [String!]!, $policy: TerminateRunPolicy!) {
  terminateRuns(runIds: $runs, terminatePolicy: $policy) {__typename}
}"""

# Seconds. On an interrupt, `DbtProcess` kills a dbt that has not ended by itself after fifteen.
PATIENCE = 20

STATES = {"RunSuccessEvent": "success", "RunFailureEvent": "failure", "RunCanceledEvent": "canceled"}


def run(job: str) -> bool:
    """Start the job and follow it to its end, and return whether it succeeded."""
    start = time.monotonic()
    if error := load_current_project():
        return finish("failure", start, error)
    run_id = launch(job)
    api.emit("started", job=job, run_id=run_id, url=page(run_id))
    message = None
    failed = []
    for event in events(run_id):
        if record := node_record(event):
            api.emit("node", **record)
            failed += results.failures([record])
        elif event["__typename"] == "ExecutionStepFailureEvent":
            message = (event["failureMetadata"] or {}).get("description") or event["error"]["message"]
        elif state := STATES.get(event["__typename"]):
            if failed:  # dbt's words stand with each of them
                message = "failed: " + ", ".join(record["name"] for record in failed)
            return finish(state, start, (message or event["message"]) if state == "failure" else None)
    raise AssertionError("a run's events end with its state")


def page(run_id: str) -> str:
    """The run's page."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/runs/{run_id}"


def active() -> list[dict[str, Any]]:
    """The runs in progress, whoever started them."""
    answer = ask(ACTIVE)["runsOrError"]
    if "results" not in answer:
        raise api.ApiError(answer["message"])
    return [
        {"run_id": run["runId"], "job": run["jobName"], "url": page(run["runId"]), "state": run["status"].lower()}
        for run in answer["results"]
    ]


def cancel() -> list[dict[str, Any]]:
    """Cancel the runs in progress, and return them when they have ended."""
    runs = active()
    try:
        api.wait_for_end(runs, active_and_asked_to_end, PATIENCE)
    except api.ApiError:  # its process is gone, for which Dagster would wait for ever
        terminate(runs, "MARK_AS_CANCELED_IMMEDIATELY")
        api.wait_for_end(runs, active)
    return runs


def active_and_asked_to_end() -> list[dict[str, Any]]:
    """The runs in progress, each asked to end as soon as it can be: Dagster refuses while a run is being started."""
    runs = active()
    terminate([run for run in runs if run["state"] in ("started", "queued")], "SAFE_TERMINATE")
    return runs


def terminate(runs: list[dict[str, Any]], policy: str) -> None:
    """Ask Dagster to end the runs; what came of it, their states tell."""
    if runs:
        ask(TERMINATE, runs=[run["run_id"] for run in runs], policy=policy)


def finish(state: str, start: float, message: str | None) -> bool:
    """Print the last event, and return whether it is a good one."""
    api.emit("finished", state=state, seconds=round(time.monotonic() - start, 1), message=message)
    return state == "success"


def load_current_project() -> str | None:
    """Wait until Dagster has loaded the definitions of the dbt project as it is now.

    Returns:
        Why they cannot be loaded, or None when all is well.
    """
    wanted = project.fingerprint()
    fingerprint, error = api.wait_for(loaded, 90, "Dagster to load the definitions")
    if fingerprint == wanted:
        return None
    api.emit("progress", message="The dbt project has changed: Dagster loads it again.")
    ask(RELOAD, name=LOCATION)
    fingerprint, error = api.wait_for(loaded, 90, "Dagster to load the definitions again")
    if error is None and fingerprint != wanted:
        error = "The dbt project changes faster than Dagster can load it. Try again."
    return error


def loaded() -> tuple[str | None, str | None] | None:
    """The fingerprint of the definitions that Dagster has loaded, and else the error; None while it is loading them."""
    entry = ask(LOAD, name=LOCATION)["workspaceLocationEntryOrError"]
    location = entry.get("locationOrLoadError")
    if entry.get("loadStatus") != "LOADED" or location is None:
        return None
    if "repositories" not in location:
        if location["className"] == "DagsterUserCodeUnreachableError":
            return None
        cause = (location["causes"] or [location])[-1]["message"].strip()
        return None, cause.removeprefix("switchyard.project.ParseFailed: ")
    tags = [tag for job in location["repositories"][0]["jobs"] for tag in job["tags"]]
    return next(tag["value"] for tag in tags if tag["key"] == "dbt/fingerprint"), None


def launch(job: str) -> str:
    """Start the job and return the run's id."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "jobName": job}
    answer = ask(LAUNCH, params={"selector": selector})["launchRun"]
    if "run" not in answer:
        raise api.ApiError(f"Dagster did not start the job {job}: {answer.get('message') or answer['__typename']}")
    return answer["run"]["runId"]


def events(run_id: str) -> Iterator[dict[str, Any]]:
    """The events of the run, as they come."""
    cursor = None
    while True:
        answer = ask(EVENTS, run=run_id, after=cursor)["logsForRun"]
        if "events" not in answer:
            raise api.ApiError(answer["message"])
        yield from answer["events"]
        if not answer["events"]:
            time.sleep(0.5)
        cursor = answer["cursor"]


def node_record(event: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the dbt node that the event is about, if it is about one."""
    entries = (event.get("evaluation") or event).get("metadataEntries") or []
    return next((json.loads(entry["jsonString"]) for entry in entries if entry.get("label") == "dbt"), None)


if __name__ == "__main__":
    api.main(run, rerun, JOBS, active, cancel)
