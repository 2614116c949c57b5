"""``run_job.py JOB``: trigger a job in Prefect and follow it to its end; `rundbt.api` describes the flags and the output."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import count
from typing import Any

from rundbt import api, jobs

FlowRun = dict[str, Any]
FLOW = "dbt"
# Seconds. The worker kills the process of a flow run that has not ended by itself after 30, and then loads the flow for its hooks.
CANCEL_TIMEOUT_S = 60
IN_PROGRESS = ["RUNNING", "PENDING", "PAUSED", "CANCELLING"]
FINISHED = {"COMPLETED": "success", "FAILED": "failure", "CRASHED": "failure", "CANCELLED": "canceled"}
# The text that Prefect and prefect-dbt put before dbt's own message.
PREFIX = re.compile(r"^Flow run encountered an exception: (\w+: )?(Failed to invoke dbt command '[^']*': )?")


def request(method: str, path: str, body: Any = None) -> Any:
    """Send a request to Prefect's REST API."""
    url, headers = f"{os.environ['PREFECT_API_URL']}/{path}", api.basic_auth(os.environ["PREFECT_API_AUTH_STRING"])
    return api.request(method, url, body, headers, tries=api.TRIES, twice=path.endswith(("/filter", "/count")))


def run(job: str, options: jobs.Options) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded."""
    deployment = api.wait_for(lambda: find_deployment(job), 60, f"Prefect's worker to offer the job {job}")
    started = now()
    asked = {"state": {"type": "SCHEDULED"}, "parameters": {"job": job, **(asdict(options) if options else {})}}
    return follow(request("POST", f"deployments/{deployment['id']}/create_flow_run", asked), started)


def rerun() -> bool:
    """Retry the newest flow run, like the button on its page: the flow then runs ``dbt retry``."""
    ended = {"flow_runs": {"state": {"type": {"any_": list(FINISHED)}}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    newest = next(iter(request("POST", "flow_runs/filter", ended)), None)
    if newest is None:
        return api.nothing_failed("There was no run yet.")
    if newest["state_type"] == "COMPLETED":
        return api.nothing_failed(f"The last run, {job_of(newest)}, succeeded.")
    api.wait_for(lambda: find_deployment(job_of(newest)), 60, "Prefect's worker")
    started = now()
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Run again from failure."}
    answer = request("POST", f"flow_runs/{newest['id']}/set_state", {"state": retry, "force": True})
    if answer["status"] != "ACCEPT":
        raise api.ApiError(f"Prefect does not retry {page(newest)}: {answer['details'].get('reason')}")
    return follow(newest, started)


def now() -> str:
    """The time, in Prefect's format."""
    return datetime.now(timezone.utc).isoformat()


def job_of(flow_run: FlowRun) -> str:
    """The flow run's job."""
    return flow_run["parameters"].get("job", flow_run["name"])


def follow(flow_run: FlowRun, started: str) -> bool:
    """Emit the events of a flow run that has just been scheduled, and return whether it succeeded.

    Args:
        flow_run: the flow run as it was before.
        started: the time before it was scheduled; anything older belongs to an earlier attempt.
    """
    api.emit("started", job=job_of(flow_run), run_id=flow_run["id"], url=page(flow_run))
    flow_run = wait(flow_run["id"], started)
    state = FINISHED.get(flow_run["state_type"])
    message: str | None
    if state is None:
        state, message = "failure", give_up(flow_run)
    else:
        message = None if state == "success" else PREFIX.sub("", flow_run["state"]["message"] or flow_run["state_name"])
    newer = {"flow_run_id": {"any_": [flow_run["id"]]}, "key": {"any_": ["dbt-nodes"]}}
    for artifact in request("POST", "artifacts/filter", {"artifacts": newer, "sort": "CREATED_DESC", "limit": 1}):
        if artifact["created"] > started:
            for record in json.loads(artifact["data"]):
                api.emit("node", **record)
    api.emit("finished", state=state, seconds=seconds(flow_run), message=message)
    return state == "success"


def seconds(flow_run: FlowRun) -> float:
    """How long the last attempt ran."""
    states = request("GET", f"flow_run_states/?flow_run_id={flow_run['id']}")
    times = [datetime.fromisoformat(state["timestamp"]) for state in states if state["type"] == "RUNNING"]
    return round((datetime.fromisoformat(flow_run["state"]["timestamp"]) - max(times)).total_seconds(), 1) if times else 0.0


def wait(run_id: str, started: str) -> FlowRun:
    """Wait until the flow run ends or its worker is offline, and emit its progress."""
    shown: list[str] = []
    rounds = count()

    def report(message: str) -> None:
        if message not in shown[-1:]:
            shown.append(message)
            api.emit("progress", message=message)

    def probe() -> FlowRun | None:
        flow_run = request("GET", f"flow_runs/{run_id}")
        if flow_run["state_type"] in FINISHED:
            return flow_run
        passed = next(rounds)
        if passed % 4 == 3:
            if flow_run["state_type"] == "SCHEDULED":
                for other in [other for other in active() if other["run_id"] != run_id and other["state"] not in ("scheduled", "late")][:1]:
                    report(f"waits for {other['job']}, {other['state']}: {other['url']}")
            elif flow_run["state_type"] == "RUNNING":
                ended = {"state": {"type": {"any_": list(FINISHED)}}, "start_time": {"after_": started}}
                report(f"{request('POST', 'task_runs/count', {'flow_runs': {'id': {'any_': [run_id]}}, 'task_runs': ended})} tasks done")
        # The status is NOT_READY when no worker has asked for the deployment's runs for a minute.
        worker_offline = passed % 20 == 19 and request("GET", f"deployments/{flow_run['deployment_id']}")["status"] == "NOT_READY"
        return request("GET", f"flow_runs/{run_id}") if worker_offline else None  # it may have ended since the first request

    return api.wait_for(probe, float("inf"), "the flow run to end", every=0.25)


def page(flow_run: dict[str, Any]) -> str:
    """The flow run's page, in the UI that opens at the server's address."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/v2/runs/flow-run/{flow_run['id']}"


def active() -> list[dict[str, Any]]:
    """The flow runs in progress or due, no matter who started them; not those that a schedule created for later."""
    due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now()}}
    # In this order, a flow run that starts between the two requests is in both answers, instead of in neither.
    asked = (due, {"state": {"type": {"any_": IN_PROGRESS}}})
    found = {flow_run["id"]: flow_run for one in asked for flow_run in request("POST", "flow_runs/filter", {"flow_runs": one})}
    return [
        {
            "run_id": flow_run["id"],
            "job": job_of(flow_run),
            "url": page(flow_run),
            "state": flow_run["state_name"].lower(),
            "worker": flow_run["labels"].get("prefect.worker.name", ""),
            "since": flow_run["start_time"] or "",
        }
        for flow_run in found.values()
    ]


def cancel() -> list[dict[str, Any]]:
    """Cancel the flow runs in progress, and return them when they have ended."""
    flow_runs = active()
    for flow_run in flow_runs:
        # The worker ends the process of a flow run that has one; the server sets the others to Cancelled.
        request("POST", f"flow_runs/{flow_run['run_id']}/set_state", {"state": {"type": "CANCELLING"}})
    try:
        api.wait_for_end(flow_runs, active, CANCEL_TIMEOUT_S)
    except api.ApiError:  # there is no worker to end it
        for run_id in {flow_run["run_id"] for flow_run in flow_runs} & {flow_run["run_id"] for flow_run in active()}:
            take_back(run_id)
    return flow_runs


def find_deployment(job: str) -> dict[str, Any] | None:
    """The job's deployment, or None while no worker serves it."""
    try:
        deployment = request("GET", f"deployments/name/{FLOW}/{job}")
    except api.ApiError as error:
        if error.status == 404:  # the worker has not registered it yet
            return None
        raise
    return deployment if deployment["status"] == "READY" else None


def give_up(flow_run: dict[str, Any]) -> str:
    """End a flow run that no worker executes or will execute, so that it does not start unexpectedly later; return what happened."""
    if flow_run["state_type"] == "RUNNING":
        why = "Prefect's worker has stopped. See the log of prefect-worker."
        request("POST", f"flow_runs/{flow_run['id']}/set_state", {"state": {"type": "CRASHED", "message": why}, "force": True})
        return why
    take_back(flow_run["id"])
    return f"Prefect's worker has stopped; the flow run, which was {flow_run['state_name']}, is cancelled. See the log of prefect-worker."


def take_back(run_id: str) -> None:
    """Mark a flow run that no worker executes as cancelled."""
    state = {"type": "CANCELLED", "message": "No worker executes it."}
    request("POST", f"flow_runs/{run_id}/set_state", {"state": state, "force": True})


if __name__ == "__main__":
    api.main(run, rerun, active, cancel)
