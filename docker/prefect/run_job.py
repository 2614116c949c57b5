"""``run_job.py JOB``: trigger a job in Prefect and follow it to its end; ``--active`` tells and ``--cancel`` cancels what runs.

What it prints is described in `switchyard.api`.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from itertools import count
from typing import Any

from switchyard import api
from switchyard.jobs import JOBS

FLOW = "dbt"
# Seconds. The worker kills the process of a flow run that has not ended by itself after thirty.
PATIENCE = 40
IN_PROGRESS = ["RUNNING", "PENDING", "PAUSED", "CANCELLING"]
FINISHED = {"COMPLETED": "success", "FAILED": "failure", "CRASHED": "failure", "CANCELLED": "canceled"}


def request(method: str, path: str, body: Any = None) -> Any:
    """Ask Prefect's REST API."""
    return api.request(method, f"{os.environ['PREFECT_API_URL']}/{path}", body, api.basic_auth(os.environ["PREFECT_API_AUTH_STRING"]))


def run(job: str) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded."""
    deployment = api.wait_for(lambda: find_deployment(job), 60, f"Prefect's worker to offer the job {job}")
    flow_run = request("POST", f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    api.emit("started", job=job, run_id=flow_run["id"], url=page(flow_run))

    flow_run = follow(flow_run)
    state = FINISHED.get(flow_run["state_type"])
    if state is None:
        state, message = "failure", give_up(flow_run)
    else:
        message = None if state == "success" else flow_run["state"]["message"]
    api.emit("finished", state=state, seconds=round(flow_run["total_run_time"], 1), message=message)
    return state == "success"


def page(flow_run: dict[str, Any]) -> str:
    """The flow run's page."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/runs/flow-run/{flow_run['id']}"


def active() -> list[dict[str, Any]]:
    """The flow runs in progress, whoever started them, and those that are due; not those that a schedule holds for later."""
    now = datetime.now(timezone.utc).isoformat()
    found = [
        *request("POST", "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": IN_PROGRESS}}}}),
        *request(
            "POST", "flow_runs/filter",
            {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now}}},
        ),
    ]  # fmt: skip
    return [
        {
            "run_id": flow_run["id"],
            "job": flow_run["parameters"].get("job", flow_run["name"]),
            "url": page(flow_run),
            "state": flow_run["state_name"].lower(),
        }
        for flow_run in found
    ]


def cancel() -> list[dict[str, Any]]:
    """Cancel the flow runs in progress, and return them when they have ended."""
    flow_runs = active()
    for flow_run in flow_runs:
        # The worker ends the process of one that has a process; to one that has none, the server gives the state Cancelled.
        request("POST", f"flow_runs/{flow_run['run_id']}/set_state", {"state": {"type": "CANCELLING"}})
    try:
        api.wait_for_end(flow_runs, active, PATIENCE)
    except api.ApiError:  # no worker is there to end it
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


def follow(started: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of the flow run, or of the worker, telling of each dbt node as it ends."""
    told: set[str] = set()
    rounds = count()
    table = {"flow_run_id": {"any_": [started["id"]]}, "type": {"any_": ["table"]}}

    def tell(artifacts: list[dict[str, Any]]) -> None:
        for artifact in artifacts:
            for record in json.loads(artifact["data"]):
                if record["unique_id"] not in told:
                    told.add(record["unique_id"])
                    api.emit("node", **record)

    def probe() -> dict[str, Any] | None:
        flow_run = request("GET", f"flow_runs/{started['id']}")  # before the table, or else its last rows could be missed
        is_over = flow_run["state_type"] in FINISHED
        passed = next(rounds)
        if is_over or passed % 4 == 0:  # the flow renews it every second
            tell(request("POST", "artifacts/filter", {"artifacts": table}))
        if is_over:
            return flow_run
        # Prefect says NOT_READY when no worker has asked for the deployment's runs for a minute.
        gone = passed % 20 == 0 and request("GET", f"deployments/{started['deployment_id']}")["status"] == "NOT_READY"
        return flow_run if gone else None

    return api.wait_for(probe, float("inf"), "the flow run to end", every=0.25)


def give_up(flow_run: dict[str, Any]) -> str:
    """Take back a flow run that no worker executes, so that it does not start unasked later, and say what happened."""
    take_back(flow_run["id"])
    return f"Prefect's worker is gone; the flow run, which was {flow_run['state_name']}, is cancelled. See the log of prefect-worker."


def take_back(run_id: str) -> None:
    """Mark a flow run as cancelled that no worker executes."""
    state = {"type": "CANCELLED", "message": "No worker executes it."}
    request("POST", f"flow_runs/{run_id}/set_state", {"state": state, "force": True})


if __name__ == "__main__":
    api.main(run, rerun, JOBS, active, cancel)
