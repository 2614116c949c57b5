"""``run_job.py JOB``: trigger a job in Airflow and follow it to its end. What it prints is described in `switchyard.api`."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urljoin

from switchyard import api, project
from switchyard.jobs import JOBS
from switchyard.results import failures

# What dag_factory.py and this file say to each other: the name of the XCom with dbt's results, and the beginning of the
# import error of a broken project, which the project's fingerprint follows.
RESULTS_KEY = "dbt_results"
PARSE_FAILED = "dbt cannot parse the project"

DONE = ("success", "failed", "upstream_failed", "skipped", "removed")


class Airflow:
    """Airflow's REST API, signed in."""

    def __init__(self) -> None:
        # The tasks' API is served beside the public one, and every component is told where.
        self.root = urljoin(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], "/")
        credentials = {"username": "admin", "password": os.environ["AIRFLOW_ADMIN_PASSWORD"]}
        token = api.request("POST", f"{self.root}auth/token", credentials)["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return api.request(method, f"{self.root}api/v2/{path}", body, self.headers)

    def find(self, path: str) -> Any:
        """What is at ``path``, or None where there is nothing."""
        try:
            return self.request("GET", path)
        except api.ApiError as error:
            if error.status == 404:
                return None
            raise


def run(job: str) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded."""
    airflow = Airflow()
    problem = make_current(airflow, job)
    if problem:
        api.emit("finished", state="failure", seconds=0.0, message=problem)
        return False

    airflow.request("PATCH", f"dags/{job}?update_mask=is_paused", {"is_paused": False})
    run_id = airflow.request("POST", f"dags/{job}/dagRuns", {"logical_date": None, "conf": {}})["dag_run_id"]
    path = f"dags/{job}/dagRuns/{quote(run_id, safe='')}"
    page = f"{os.environ['SWITCHYARD_UI_URL']}/dags/{job}/runs/{quote(run_id, safe='')}"
    api.emit("started", job=job, run_id=run_id, url=page)

    dag_run = follow(airflow, path)
    results = read_results(airflow, path)
    for record in results["nodes"]:
        api.emit("node", **record)
    good = dag_run["state"] == "success"
    message = None if good else why(airflow, path, results, page)
    api.emit("finished", state="success" if good else "failure", seconds=round(dag_run["duration"] or 0.0, 1), message=message)
    return good


def make_current(airflow: Airflow, job: str) -> str | None:
    """Wait until Airflow's DAG is the one of the dbt project as it is now, asking for a new parse where it is not.

    Returns:
        None, or why Airflow cannot load the project.
    """
    wanted = project.fingerprint()
    asked = None

    def probe() -> tuple[str | None] | None:
        nonlocal asked
        dag = airflow.find(f"dags/{job}")
        error = import_error(airflow, job)
        if dag and not error and f"dbt:{wanted}" in {tag["name"] for tag in dag["tags"]}:
            return (None,)
        if error and (wanted in error["stack_trace"] or (asked and asked < datetime.fromisoformat(error["timestamp"]))):
            return (reason(error["stack_trace"]),)
        if dag and not asked:
            api.emit("progress", message="the dbt project changed: Airflow reads it anew")
            asked = datetime.now(timezone.utc)
            airflow.request("PUT", f"parseDagFile/{dag['file_token']}")
        return None

    (problem,) = api.wait_for(probe, 180, f"Airflow to load the dbt project {wanted} into the DAG {job}")
    return problem


def import_error(airflow: Airflow, job: str) -> dict[str, Any] | None:
    """Airflow's complaint about the file of the job's DAG, if there is one."""
    errors = airflow.request("GET", f"importErrors?filename={job}.py")["import_errors"]
    return errors[0] if errors else None


def reason(stack_trace: str) -> str:
    """The part of an import error that helps: dbt's own message, or else the exception."""
    _, found, text = stack_trace.partition(f"RuntimeError: {PARSE_FAILED}")
    return f"{found}{text}".removeprefix("RuntimeError: ").strip() or stack_trace.strip().splitlines()[-1]


def follow(airflow: Airflow, path: str) -> dict[str, Any]:
    """Wait for the end of the run, telling how many of its tasks are done, and return the run."""
    told = 0
    total = count_tasks(airflow, path)

    def probe() -> dict[str, Any] | None:
        nonlocal told
        done = count_tasks(airflow, path, *DONE)
        if done > told:
            told = done
            api.emit("progress", message=f"{done} of {total} tasks done")
        dag_run = airflow.request("GET", path) if done >= total else None
        return dag_run if dag_run and dag_run["state"] in DONE else None

    return api.wait_for(probe, float("inf"), "the run", every=1)


def count_tasks(airflow: Airflow, path: str, *states: str) -> int:
    """How many tasks of the run there are, or only those in one of ``states``."""
    wanted = "".join(f"&state={state}" for state in states)
    return airflow.request("GET", f"{path}/taskInstances?limit=1{wanted}")["total_entries"]


def read_results(airflow: Airflow, path: str) -> dict[str, Any]:
    """What `dag_factory.push_results` wrote down: dbt's own record of every node, or the error that kept dbt from running any."""
    entries = airflow.request("GET", f"{path}/taskInstances/~/xcomEntries?xcom_key_pattern={RESULTS_KEY}")["xcom_entries"]
    if not entries:
        return {"nodes": [], "error": None}
    return airflow.request("GET", f"{path}/taskInstances/{entries[0]['task_id']}/xcomEntries/{RESULTS_KEY}")["value"]


def why(airflow: Airflow, path: str, results: dict[str, Any], page: str) -> str:
    """Why the run failed."""
    broken = [f"{record['kind']} {record['name']}" for record in failures(results["nodes"])]
    if broken:
        return f"dbt reports {len(broken)} failed: {', '.join(broken)}"
    if results["error"]:
        return results["error"]
    tasks = airflow.request("GET", f"{path}/taskInstances?state=failed")["task_instances"]
    names = ", ".join(task["task_display_name"] for task in tasks)
    return f"failed in Airflow, with nothing from dbt: {names}; the logs are at {page}"


if __name__ == "__main__":
    api.main(run, JOBS)
