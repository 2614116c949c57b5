"""``run_job.py JOB``: trigger a job in Airflow and follow it to its end; ``--active`` lists and ``--cancel`` cancels active runs.

`rundbt.api` describes its output.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urljoin

from results_xcom import KEY, PRODUCER, manifest
from rundbt import api, jobs, project_files
from rundbt.results import failures, left, retryable

# The beginning of the import error of a broken project; the project's fingerprint follows it.
PARSE_FAILED = "dbt cannot parse the project"

# Airflow reports a canceled run as failed. This note, shown on the run's page, distinguishes the two.
CANCELED = "Canceled by a command of the task runner."
# One of these is in the log of a task that runs dbt when dbt has ended, or the task was killed before it ran dbt.
DBT_ENDED = ("Command exited with return code", "Task killed!")

TASKLESS = ("function", "unit_test")  # nodes for which Cosmos has no task
CUSTOM = "-custom"
ARGUMENT_LIMIT = 100_000  # characters; Linux takes 128 KiB for one argument
SILENCE_TIMEOUT_S = 120  # how long the scheduler may not report

DONE = ("success", "failed", "upstream_failed", "skipped", "removed")
UNFINISHED = ("scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred")


class AirflowApi:
    """Airflow's REST API, signed in."""

    def __init__(self) -> None:
        # The same server has the API for tasks, whose address every component has.
        self.root = urljoin(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], "/")
        credentials = {"username": "admin", "password": os.environ["AIRFLOW_ADMIN_PASSWORD"]}
        token = api.request("POST", f"{self.root}auth/token", credentials)["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return api.request(method, f"{self.root}api/v2/{path}", body, self.headers, tries=api.TRIES)

    def find(self, path: str) -> Any:
        """The resource at ``path``, or None if there is none."""
        try:
            return self.request("GET", path)
        except api.ApiError as error:
            if error.status == 404:
                return None
            raise


def custom_dag(job: str) -> str:
    """The DAG for runs of ``job`` with options, when its own DAG has a task for each node. No job can have this name."""
    return job + CUSTOM


def run(job: str, options: jobs.Options, earlier: float = 0.0) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded; ``earlier`` is the duration of the run that this one completes."""
    airflow = AirflowApi()
    dag, problem = job, make_current(airflow, job)
    if not problem and options and airflow.find(f"dags/{job}/tasks/{PRODUCER}"):  # it has a task for each node
        dag = custom_dag(job)
        problem = make_current(airflow, dag)
    if problem:
        api.emit("finished", state="failure", seconds=0.0, message=problem)
        return False

    others = find_active(airflow)
    paused = airflow.request("GET", f"dags/{dag}")["is_paused"]
    known = airflow.request("PATCH", f"dags/{dag}?update_mask=is_paused", {"is_paused": False})  # a paused DAG runs nothing
    if paused and known["timetable_summary"]:
        api.emit("progress", message=f"The schedule of {job} was paused; it is on again, because Airflow does not run a paused DAG.")
    conf = asdict(options) if options else {}
    run_id = airflow.request("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
    path = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}"
    url = page(dag, run_id)
    start(job, run_id, url, others)
    return report(airflow, path, url, follow(airflow, path), read_results(airflow, path), earlier)


def rerun() -> bool:
    """Clear the failed and skipped tasks of the newest run, so that Airflow runs them again, and follow the run to its end."""
    airflow = AirflowApi()
    newest = airflow.request("GET", "dags/~/dagRuns?order_by=-run_after&limit=50")["dag_runs"]
    newest = [dag_run for dag_run in newest if dag_run["dag_id"].removesuffix(CUSTOM) in jobs.load()]
    if not newest:
        return api.nothing_failed("There is no run yet.")
    dag, run_id = newest[0]["dag_id"], newest[0]["dag_run_id"]
    job = dag.removesuffix(CUSTOM)
    try:
        options = jobs.Options.among(newest[0]["conf"] or {})
    except jobs.JobsError as error:
        raise api.ApiError(f"The last run, {job}, was started with parameters that no job takes: {error}") from None
    if newest[0]["state"] == "success":
        return api.nothing_failed(f"The last run, {job}, succeeded.")
    if newest[0]["state"] != "failed":
        raise api.ApiError(f"The last run has not ended yet: {page(dag, run_id)}")
    path = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}"
    nodes = left(read_results(airflow, path)["nodes"])
    if newest[0]["note"] == CANCELED or not nodes or jobs.load()[job].before:  # it is not known what dbt did not reach
        return run(job, options)

    def narrowed(nodes: list[dict[str, Any]]) -> jobs.Options:
        return replace(options, select=selection(nodes) or options.select)

    if jobs.load()[job].dbt_args[0] == "build":
        whole = not airflow.find(f"dags/{dag}/tasks/{PRODUCER}")  # one task for the whole build
        # The task of a microbatch model may have succeeded although some batches failed.
        if whole or any(node["kind"] in TASKLESS or node["status"] == "partial success" for node in failures(nodes)):
            return run(job, narrowed(nodes))
        if not airflow.find(f"{path}/taskInstances/{PRODUCER}"):  # it was a run of the lean integration
            return run(job, options)
    tasks = task_instances(airflow, path, "failed", "upstream_failed")
    again = [task["task_id"] for task in tasks if task["task_id"] != PRODUCER]
    # Hooks, and tests without a seed, snapshot or model, have no task; the last task exists only to fail when the first one does.
    if not set(again) - {f"{PRODUCER}_done"} or any(node["kind"] == "operation" for node in nodes):
        return run(job, options)
    if problem := make_current(airflow, dag):
        api.emit("finished", state="failure", seconds=0.0, message=problem)
        return False
    in_dag = {task["task_id"] for task in airflow.request("GET", f"dags/{dag}/tasks")["tasks"]}
    if in_dag - {task["task_id"] for task in task_instances(airflow, path)}:
        # After an edit, the project has new tasks. Airflow does not always add them to a cleared run, and then their downstream tasks
        # never run.
        return run(job, narrowed(nodes))
    others = find_active(airflow)
    now = datetime.now(timezone.utc)
    forget(airflow, path, nodes)
    if len(again) < len(tasks):
        # As Cosmos itself does on a retry of this task: if it is skipped, each task that watches it runs dbt for its own node.
        try:
            airflow.request("PATCH", f"{path}/taskInstances/{PRODUCER}", {"new_state": "skipped"})
        except api.ApiError as error:
            if error.status != 409:  # it is skipped already: the answer to an earlier try was lost
                raise
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": again, "only_failed": True, "run_on_latest_version": True}
    airflow.request("POST", f"dags/{dag}/clearTaskInstances", body)
    url = page(dag, run_id)
    start(job, run_id, url, others)
    ended = follow(airflow, path)
    found = read_results(airflow, path, now)
    if ended["state"] == "failed" and ended["note"] != CANCELED and not found["nodes"] and not found["error"]:
        # Airflow may end a cleared run before it starts any of its tasks.
        return run(job, narrowed(nodes))
    ran = {node["unique_id"] for node in found["nodes"]}
    missing = [node for node in nodes if node["kind"] == "test" and node["unique_id"] not in ran]
    if ended["state"] == "success" and missing:
        # A test of two models that do not depend on each other is in none of the cleared tasks.
        for record in found["nodes"]:
            api.emit("node", **record)
        return run(job, narrowed(missing), ended["duration"] or 0.0)
    return report(airflow, path, url, ended, found)


def selection(nodes: list[dict[str, Any]]) -> str:
    """The nodes for dbt's ``--select``; empty if one is a hook, no longer exists or cannot be selected by name, or they are too many."""
    names = [node["name"].rpartition("::")[2] for node in nodes]  # a unit test's name follows its model's
    plain = all(re.fullmatch(r"\w+", name) for name in names) and all(node["kind"] != "operation" for node in nodes)
    text = " ".join(names)
    return text if plain and len(text) < ARGUMENT_LIMIT and retryable(nodes, json.loads(manifest().read_bytes())) else ""


def forget(airflow: AirflowApi, path: str, nodes: list[dict[str, Any]]) -> None:
    """Delete the build task's XComs about the nodes that are to run again; a task that never ran would take them for its own result."""
    xcoms = f"{path}/taskInstances/{PRODUCER}/xcomEntries"
    keys = {f"{node['unique_id'].replace('.', '__')}_status" for node in nodes}
    for entry in pages(airflow, f"{xcoms}?xcom_key_pattern=_status", "xcom_entries"):
        key, address = entry["key"], f"{xcoms}/{quote(entry['key'], safe='')}"
        if key in keys or (key.endswith("_tests_status") and airflow.request("GET", address)["value"] != "pass"):
            airflow.request("DELETE", address)


def start(job: str, run_id: str, url: str, others: list[dict[str, Any]]) -> None:
    """Emit that a run has started, and which runs it has to wait for."""
    api.emit("started", job=job, run_id=run_id, url=url)
    if others:
        api.emit("progress", message="waits for " + ", ".join(f"{run['job']}, {run['state']}: {run['url']}" for run in others))


def report(airflow: AirflowApi, path: str, url: str, dag_run: dict[str, Any], results: dict[str, Any], earlier: float = 0.0) -> bool:
    """Emit the nodes and the end of a run, and return whether it succeeded."""
    for record in results["nodes"]:
        api.emit("node", **record)
    good = dag_run["state"] == "success"
    canceled = not good and dag_run["note"] == CANCELED
    api.emit(
        "finished",
        state="success" if good else "canceled" if canceled else "failure",
        seconds=round(earlier + (dag_run["duration"] or 0.0), 1),
        message=None if good or canceled else why(airflow, path, results, url),
    )
    return good


def page(dag: str, run_id: str) -> str:
    """The run's page."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/dags/{dag}/runs/{quote(run_id, safe='')}"


def active() -> list[dict[str, Any]]:
    """The runs in progress, of every DAG, no matter who started them."""
    return find_active(AirflowApi())


def cancel() -> list[dict[str, Any]]:
    """Cancel the runs in progress, and return them when dbt has ended."""
    airflow = AirflowApi()
    runs = find_active(airflow)
    logs = []
    for run in runs:
        path = f"dags/{run['dag']}/dagRuns/{quote(run['run_id'], safe='')}"
        before = {key for key, task in tasks_of_dbt(airflow, path).items() if task["end_date"]}
        airflow.request("PATCH", path, {"state": "failed", "note": CANCELED})
        # Listed only now, so that a task that has just started is included; one that had not started is skipped.
        for (task, attempt), body in tasks_of_dbt(airflow, path).items():
            if body["state"] == "failed" and (task, attempt) not in before:
                logs.append(f"{path}/taskInstances/{quote(task, safe='')}/logs/{attempt}?full_content=true")

    def ended() -> bool | None:
        texts = (str(airflow.find(log)) for log in logs)
        return all(any(mark in text for mark in DBT_ENDED) for text in texts) or None

    # Airflow reports them as failed at once; dbt is interrupted at its task's next heartbeat.
    api.wait_for(ended, 60, "dbt to end in " + ", ".join(f"{run['job']} ({run['url']})" for run in runs))
    return runs


def tasks_of_dbt(airflow: AirflowApi, path: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The task instances of a run that run dbt, by task and attempt; the others watch them."""
    found = pages(airflow, f"{path}/taskInstances?pool=dbt", "task_instances")
    return {(task["task_id"], task["try_number"]): task for task in found}


def find_active(airflow: AirflowApi) -> list[dict[str, Any]]:
    """See `active`."""
    dag_runs = pages(airflow, "dags/~/dagRuns?state=running&state=queued", "dag_runs")
    running = pages(airflow, "dags/~/dagRuns/~/taskInstances?state=running&pool=dbt", "task_instances") if dag_runs else []
    hosts = {(task["dag_id"], task["dag_run_id"]): task["hostname"] for task in running}
    return [
        {
            "run_id": dag_run["dag_run_id"],
            "job": dag_run["dag_id"].removesuffix(CUSTOM),
            "dag": dag_run["dag_id"],
            "url": page(dag_run["dag_id"], dag_run["dag_run_id"]),
            "state": dag_run["state"],
            "worker": hosts.get((dag_run["dag_id"], dag_run["dag_run_id"]), ""),
            "since": dag_run["start_date"] or "",
        }
        for dag_run in dag_runs
    ]


def make_current(airflow: AirflowApi, dag_id: str) -> str | None:
    """Wait until Airflow's DAG is that of the current dbt project; request a new parse if it is not.

    Returns:
        None, or why Airflow cannot load the project.
    """
    wanted = project_files.fingerprint()
    began = datetime.now(timezone.utc)
    asked = False

    def probe() -> tuple[str | None] | None:
        nonlocal asked
        dag = airflow.find(f"dags/{dag_id}")
        error = import_error(airflow)
        if dag and not error and f"dbt:{wanted}" in {tag["name"] for tag in dag["tags"]}:
            return (None,)
        if error and (wanted in error["stack_trace"] or began < datetime.fromisoformat(error["timestamp"])):
            return (reason(error["stack_trace"]),)
        loaded = dag or next(iter(airflow.request("GET", "dags?tags=dbt&limit=1")["dags"]), None)
        if loaded and not asked:  # a new job's DAG is in the same file as the others
            api.emit("progress", message="the dbt project changed: Airflow loads it again")
            asked = True
            airflow.request("PUT", f"parseDagFile/{loaded['file_token']}")
        return None

    (problem,) = api.wait_for(probe, 180, f"Airflow to load the dbt project {wanted} into the DAG {dag_id}")
    return problem


def import_error(airflow: AirflowApi) -> dict[str, Any] | None:
    """Airflow's import error of the DAGs' file, if there is one."""
    errors = airflow.request("GET", "importErrors?filename=jobs.py")["import_errors"]
    return errors[0] if errors else None


def reason(stack_trace: str) -> str:
    """The useful part of an import error: dbt's own message, or else the exception."""
    _, found, text = stack_trace.partition(f"RuntimeError: {PARSE_FAILED}")
    return f"{found}{text}".removeprefix("RuntimeError: ").strip() or stack_trace.strip().splitlines()[-1]


def follow(airflow: AirflowApi, path: str) -> dict[str, Any]:
    """Wait for the end of the run, emit how many of its tasks are done, and return the run.

    Raises:
        ApiError: the scheduler has not reported for two minutes; without it no run ends.
    """
    shown, silent_since = 0, None
    total = count_tasks(airflow, path)
    looks = itertools.count(1)

    def probe() -> dict[str, Any] | None:
        nonlocal shown, silent_since
        done = count_tasks(airflow, path, *DONE)
        if done > shown:
            shown = done
            api.emit("progress", message=f"{done} of {total} tasks done")
        if done < total and next(looks) % 20:
            return None
        # A failed run can have tasks that never run.
        dag_run = airflow.request("GET", path)
        ended = dag_run["state"] in DONE and (done >= total or not count_tasks(airflow, path, *UNFINISHED))
        if ended or airflow.request("GET", "monitor/health")["scheduler"]["status"] == "healthy":
            silent_since = None
        elif silent_since is None:
            silent_since = time.monotonic()
            api.emit("progress", message="waits for Airflow's scheduler, which does not report: invoke up")
        elif time.monotonic() - silent_since > SILENCE_TIMEOUT_S:
            raise api.ApiError("The run cannot end: Airflow's scheduler does not report. invoke up starts it, and the run continues.")
        return dag_run if ended else None

    return api.wait_for(probe, float("inf"), "the run", every=0.4)


def task_instances(airflow: AirflowApi, path: str, *states: str) -> list[dict[str, Any]]:
    """The task instances of the run, or only those in one of ``states``."""
    wanted = "".join(f"&state={state}" for state in states)
    return pages(airflow, f"{path}/taskInstances?order_by=id{wanted}", "task_instances")


def pages(airflow: AirflowApi, path: str, name: str) -> list[dict[str, Any]]:
    """All entries of a list. Airflow returns 100 at most per request, whatever the limit (``[api] maximum_page_limit``)."""
    found: list[dict[str, Any]] = []
    while True:
        page = airflow.request("GET", f"{path}&limit=100&offset={len(found)}")
        found += page[name]
        if not page[name] or len(found) >= page["total_entries"]:
            return found


def count_tasks(airflow: AirflowApi, path: str, *states: str) -> int:
    """How many tasks of the run there are, or only those in one of ``states``."""
    wanted = "".join(f"&state={state}" for state in states)
    return airflow.request("GET", f"{path}/taskInstances?limit=1{wanted}")["total_entries"]


def read_results(airflow: AirflowApi, path: str, since: datetime | None = None) -> dict[str, Any]:
    """The results from `results_xcom.push_results`, all or those after ``since``: dbt's last record of each node, or why it ran none."""
    nodes: dict[str, dict[str, Any]] = {}
    error = None
    entries = pages(airflow, f"{path}/taskInstances/~/xcomEntries?xcom_key_pattern={KEY}", "xcom_entries")
    for entry in sorted(entries, key=lambda entry: entry["timestamp"]):
        if since is None or datetime.fromisoformat(entry["timestamp"]) > since:
            value = airflow.request("GET", f"{path}/taskInstances/{quote(entry['task_id'], safe='')}/xcomEntries/{KEY}")["value"]
            nodes |= {node["unique_id"]: node for node in value["nodes"]}
            error = error or value["error"]
    return {"nodes": list(nodes.values()), "error": error}


def why(airflow: AirflowApi, path: str, results: dict[str, Any], url: str) -> str:
    """Why the run failed."""
    broken = [f"{record['kind']} {record['name']}" for record in failures(results["nodes"])]
    if broken:
        return f"dbt reports {len(broken)} failed: {', '.join(broken)}"
    if results["error"]:
        return results["error"]
    tasks = airflow.request("GET", f"{path}/taskInstances?state=failed")["task_instances"]
    names = ", ".join(task["task_display_name"] for task in tasks)
    return f"failed in Airflow, without a result from dbt: {names}; the logs are at {url}"


if __name__ == "__main__":
    api.main(run, rerun, active, cancel)
