"""``run_job.py JOB``: begin a job in Luigi and follow it to its end; `switchyard.api` describes the flags and what it prints."""

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from switchyard import api, jobs, project, results

ACTIVE = ("RUNNING", "PENDING")


def ask(method: str, **arguments: object) -> object:
    """Call a method of Luigi's scheduler."""
    return api.request("GET", f"{os.environ['LUIGI_URL']}/api/{method}?data={quote(json.dumps(arguments))}", tries=api.TRIES)["response"]


def folder(run_id: str) -> Path:
    """Where a run's artifacts are."""
    return Path(os.environ["LUIGI_RUNS"], run_id)


def tasks() -> dict[str, dict]:
    """The tasks in progress, by Luigi's id."""
    found = {}
    for status in ACTIVE:
        found |= ask("task_list", status=status, upstream_status="", limit=False)
    return {key: task for key, task in found.items() if any(worker in alive() for worker in task["workers"])}


def alive() -> set[str]:
    """The workers of which the scheduler hears."""
    return {worker["name"] for worker in ask("worker_list", include_running=False)}


def page(task: str) -> str:
    """The page of a task."""
    return f"{os.environ['SWITCHYARD_UI_URL']}/static/visualiser/index.html#tab=graph&taskId={quote(task)}"


def active() -> list[dict[str, str]]:
    """The runs in progress."""
    return [
        {"run_id": task["params"]["run_id"], "job": task["params"]["job"], "url": page(key), "state": task["status"].lower()}
        for key, task in tasks().items()
    ]


def run(job: str, options: jobs.Options) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded."""
    others = active()
    run_id, began = uuid.uuid4().hex, time.monotonic()
    here = folder(run_id)
    here.mkdir(parents=True)
    (here / "job").write_text(json.dumps([job, asdict(options)]))
    try:
        project.ensure_manifest()
    except project.ParseFailed as error:
        api.emit("finished", state="failure", seconds=round(time.monotonic() - began, 1), message=str(error))
        return False
    words = ["--job", job, "--options", json.dumps(asdict(options)), "--run-id", run_id]
    with open(here / "log", "wb") as log:
        argv = [sys.executable, "-m", "luigi", "--module", "flow", "Dbt", *words, "--scheduler-url", os.environ["LUIGI_URL"]]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def begun() -> str | None:
        if process.poll() is not None:
            return ""
        return next((key for key, task in tasks().items() if task["params"]["run_id"] == run_id), None)

    key = api.wait_for(begun, 60, "Luigi's scheduler to have the task", every=0.2)
    api.emit("started", job=job, run_id=run_id, url=page(key))
    if others:
        api.emit("progress", message="waits for " + ", ".join(f"{one['job']}, {one['state']}: {one['url']}" for one in others))
    good = process.wait() == 0
    records = results.read(here)
    for record in records:
        api.emit("node", **record)
    canceled = not good and (here / "canceled").exists()
    said = (here / "log").read_text(errors="replace").strip().splitlines()[-5:]
    api.emit(
        "finished",
        state="success" if good else "canceled" if canceled else "failure",
        seconds=round(time.monotonic() - began, 1),
        message=None if good or canceled or records else "\n".join(said),
    )
    return good


def rerun() -> bool:
    """Run the newest job again, where it failed."""
    runs = sorted(Path(os.environ["LUIGI_RUNS"]).glob("*/job"), key=lambda path: path.stat().st_mtime)
    if not runs or (runs[-1].parent / "succeeded").exists():
        return api.nothing_failed("The last run succeeded." if runs else "There is no run yet.")
    job, options = json.loads(runs[-1].read_text())
    return run(job, jobs.Options(**options))


def cancel() -> list[dict[str, str]]:
    """Cancel the runs in progress, and return them when they have ended."""
    runs = active()
    for key, task in tasks().items():
        (folder(task["params"]["run_id"]) / "canceled").touch()
        if task["status"] == "RUNNING":
            ask("send_scheduler_message", worker=task["worker_running"], task=key, content="cancel")
        for worker in task["workers"]:
            ask("disable_worker", worker=worker)  # it begins nothing more
    api.wait_for_end(runs, active)
    return runs


if __name__ == "__main__":
    api.main(run, rerun, active, cancel)
