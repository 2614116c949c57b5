"""``python run_job.py JOB``: start a job over Dagster's GraphQL API, follow it, and print what happens as JSON lines.

With ``--active`` or ``--cancel`` instead of the job, it lists or cancels the runs in progress; see `rundbt.api`.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from rundbt import api, jobs, project_files, results
from webserver import LOCATION, WORKER, ask, reload_code, unreachable

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

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on Error {message}
  }
}"""

REEXECUTE = """
mutation ($parent: String!, $strategy: ReexecutionStrategy!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: $strategy}) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on Error {message}
  }
}"""

EVENTS = """
query ($run: ID!, $after: String) {
  runOrError(runId: $run) {... on Run {status}}
  instance {daemonHealth {allDaemonStatuses {daemonType required healthy}}}
  logsForRun(runId: $run, afterCursor: $after, limit: 500) {
    ... on EventConnection {
      cursor
      events {
        __typename
        ... on MessageEvent {message}
        ... on ObservationEvent {assetKey {path} metadataEntries {... on JsonMetadataEntry {label jsonString}}}
        ... on ExecutionStepFailureEvent {error {message causes {message}} failureMetadata {description}}
      }
    }
    ... on Error {message}
  }
}"""

NEWEST = """
query {
  runsOrError(limit: 1) {
    ... on Runs {results {runId jobName status}}
    ... on Error {message}
  }
}"""

ACTIVE = """
query {
  runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
    ... on Runs {results {runId jobName status startTime tags {key value}}}
    ... on Error {message}
  }
}"""

TERMINATE = """
mutation ($runs: [String!]!, $policy: TerminateRunPolicy!) {
  terminateRuns(runIds: $runs, terminatePolicy: $policy) {__typename}
}"""

PROGRESS_S = 3  # seconds between two progress messages
LOAD_TIMEOUT_S = 180  # seconds: dbt may have to parse a large project again
CANCEL_TIMEOUT_S = 30  # seconds; on an interrupt, dbt has 20 of them to cancel its queries

PLANNED = ("AssetMaterializationPlannedEvent", "AssetCheckEvaluationPlannedEvent")
DONE = ("MaterializationEvent", "AssetCheckEvaluationEvent")

STATES = {"RunSuccessEvent": "success", "RunFailureEvent": "failure", "RunCanceledEvent": "canceled"}


def run(job: str, options: jobs.Options) -> bool:
    """Start the job and follow it to its end, and return whether it succeeded."""
    start = time.monotonic()
    if error := load_current_project():
        return finish("failure", start, error)
    selector = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "jobName": job}
    config = {"ops": {op_of(job): {"config": asdict(options)}}} if options else {}
    launch = {"selector": selector, "runConfigData": config}
    try:
        answer = ask(LAUNCH, params=launch)["launchRun"]
    except api.ApiError as error:
        if "OperationalError" not in str(error):
            raise
        # PostgreSQL was restarted, and the webserver noticed it only by this failure. It has created the run, and will not start it.
        stillborn = [found for found in active() if found["state"] == "not_started" and found["job"] == job]
        terminate(stillborn, "MARK_AS_CANCELED_IMMEDIATELY")
        answer = ask(LAUNCH, params=launch)["launchRun"]
    if "run" not in answer:
        raise api.ApiError(f"Dagster did not start the job {job}: {answer.get('message') or answer['__typename']}")
    return follow(job, answer["run"]["runId"], start)


def op_of(job: str) -> str:
    """The op of ``job`` that runs dbt."""
    loaded = ask(LOAD, name=LOCATION)["workspaceLocationEntryOrError"]["locationOrLoadError"]["repositories"][0]["jobs"]
    tags = next(known["tags"] for known in loaded if known["name"] == job)
    return next(tag["value"] for tag in tags if tag["key"] == "dbt/op")


def rerun() -> bool:
    """Re-run what failed and what was skipped in the newest run, with Dagster's re-execution from failure."""
    start = time.monotonic()
    answer = ask(NEWEST)["runsOrError"]
    if not answer.get("results"):
        return api.nothing_failed("There was no run yet.")
    (newest,) = answer["results"]
    if newest["status"] == "SUCCESS":
        return api.nothing_failed(f"The last run, {newest['jobName']}, succeeded.")
    if newest["status"] not in ("FAILURE", "CANCELED"):
        raise api.ApiError(f"The last run has not ended yet: {page(newest['runId'])}")
    if error := load_current_project():
        return finish("failure", start, error)
    for strategy in ("FROM_FAILURE", "ALL_STEPS"):  # a run that ended before its first step has no failed step
        answer = ask(REEXECUTE, parent=newest["runId"], strategy=strategy)["launchRunReexecution"]
        if "run" in answer:
            return follow(newest["jobName"], answer["run"]["runId"], start)
    raise api.ApiError(f"Dagster did not start the run again: {answer.get('message') or answer['__typename']}")


def follow(job: str, run_id: str, start: float) -> bool:
    """Follow the run to its end, and return whether it succeeded."""
    api.emit("started", job=job, run_id=run_id, url=page(run_id))
    message, engine, cursor, shown, at = None, None, None, None, 0.0
    records: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    while True:
        answer = ask(EVENTS, run=run_id, after=cursor)
        events = answer["logsForRun"]
        if "events" not in events:
            raise api.ApiError(events["message"])
        cursor = events["cursor"]
        for event in events["events"]:
            kind = event["__typename"]
            counts[kind] += 1
            if kind == "ObservationEvent" and event["assetKey"]["path"] == ["dbt_results"]:
                found = next(json.loads(entry["jsonString"]) for entry in event["metadataEntries"] if entry.get("label") == "dbt")
                records |= {record["unique_id"]: record for record in found}
            elif kind == "EngineEvent":
                engine = event["message"]
            elif kind == "ExecutionStepFailureEvent":
                message = (event["failureMetadata"] or {}).get("description") or (event["error"]["causes"] or [event["error"]])[-1][
                    "message"
                ]
            elif state := STATES.get(kind):
                for record in records.values():
                    api.emit("node", **record)
                if failed := results.failures(list(records.values())):  # each record has dbt's message
                    message = "failed: " + ", ".join(record["name"] for record in failed)
                if "from outside the execution context" in event["message"]:  # an earlier event of Dagster's engine has the reason
                    message = message or engine
                return finish(state, start, (message or event["message"]) if state == "failure" else None)
        now = waits_for(run_id, answer) or progress(counts)
        if now and now != shown and time.monotonic() - at >= PROGRESS_S:
            api.emit("progress", message=now)
            shown, at = now, time.monotonic()
        if not events["events"]:
            time.sleep(0.5)


def waits_for(run_id: str, answer: dict[str, Any]) -> str | None:
    """What a queued run waits for; None when it is not in the queue."""
    if answer["runOrError"]["status"] != "QUEUED":
        return None
    for other in reversed(active()):  # the oldest is the one that runs, or is the next to
        if other["run_id"] != run_id:
            return f"waits for {other['job']}, {other['state'] if other['state'] == 'queued' else 'running'}: {other['url']}"
    statuses = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    if any(status["required"] and not status["healthy"] for status in statuses):
        return "waits for Dagster's daemon, which starts queued runs and does not report: invoke up"
    return None


def progress(counts: Counter[str]) -> str | None:
    """How many of the assets and checks are done; None if that is not known."""
    planned, done = (sum(counts[kind] for kind in kinds) for kinds in (PLANNED, DONE))
    return f"{min(done, planned)} of {planned} assets and checks done" if done and planned else None


def page(run_id: str) -> str:
    """The run's page."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/runs/{run_id}"


def active() -> list[dict[str, Any]]:
    """The runs in progress, no matter who started them."""
    answer = ask(ACTIVE)["runsOrError"]
    if "results" not in answer:
        raise api.ApiError(answer["message"])
    return [
        {
            "run_id": run["runId"],
            "job": run["jobName"],
            "url": page(run["runId"]),
            "state": run["status"].lower(),
            "worker": next((tag["value"] for tag in run["tags"] if tag["key"] == WORKER), ""),
            "since": datetime.fromtimestamp(run["startTime"], timezone.utc).isoformat() if run["startTime"] else "",
        }
        for run in answer["results"]
    ]


def cancel() -> list[dict[str, Any]]:
    """Cancel the runs in progress, and return them when they have ended."""
    runs = active()
    try:
        api.wait_for_end(runs, active_and_asked_to_end, CANCEL_TIMEOUT_S)
    except api.ApiError:  # its process has ended already, and Dagster would wait for it forever
        terminate(runs, "MARK_AS_CANCELED_IMMEDIATELY")
        api.wait_for_end(runs, active)
    return runs


def active_and_asked_to_end() -> list[dict[str, Any]]:
    """The runs in progress, each asked to end as soon as it can be: Dagster refuses while a run is being started."""
    runs = active()
    terminate([run for run in runs if run["state"] in ("started", "queued")], "SAFE_TERMINATE")
    return runs


def terminate(runs: list[dict[str, Any]], policy: str) -> None:
    """Ask Dagster to end the runs; their states show the outcome."""
    if runs:
        ask(TERMINATE, runs=[run["run_id"] for run in runs], policy=policy)


def finish(state: str, start: float, message: str | None) -> bool:
    """Print the last event, and return whether the run succeeded."""
    api.emit("finished", state=state, seconds=round(time.monotonic() - start, 1), message=message)
    return state == "success"


def load_current_project() -> str | None:
    """Wait until Dagster has loaded the definitions of the current dbt project.

    Returns:
        Why they cannot be loaded, or None if they are.
    """
    wanted = project_files.fingerprint()
    if unreachable(location()):
        reload_code()
    fingerprint, error = api.wait_for(loaded, LOAD_TIMEOUT_S, "Dagster to load the definitions")
    if fingerprint == wanted:
        return None
    api.emit("progress", message="The dbt project has changed: Dagster loads it again.")
    reload_code()
    fingerprint, error = api.wait_for(loaded, LOAD_TIMEOUT_S, "Dagster to load the definitions again")
    if error is None and fingerprint != wanted:
        error = "The dbt project changed again while Dagster loaded it. Try again."
    return error


def location() -> dict[str, Any]:
    """Dagster's state of the code location: its definitions, or why there are none; empty while it is loading them."""
    entry = ask(LOAD, name=LOCATION)["workspaceLocationEntryOrError"]
    return (entry.get("loadStatus") == "LOADED" and entry.get("locationOrLoadError")) or {}


def loaded() -> tuple[str | None, str | None] | None:
    """The fingerprint of the loaded definitions, or else the error; None while Dagster is loading them."""
    found = location()
    if not found or unreachable(found):
        return None
    if "repositories" not in found:
        cause = (found["causes"] or [found])[-1]["message"].strip()
        return None, cause.removeprefix("rundbt.project_files.ParseFailed: ")
    tags = [tag for job in found["repositories"][0]["jobs"] for tag in job["tags"]]
    return next(tag["value"] for tag in tags if tag["key"] == "dbt/fingerprint"), None


if __name__ == "__main__":
    api.main(run, rerun, active, cancel)
