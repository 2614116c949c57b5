"""``run_job.py JOB``: request a run from the worker and follow it to its end; `rundbt.api` describes the flags and the output."""

import json
import os
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from flow import Dbt
from rundbt import api, jobs, results

RUNS = Path(os.environ["LUIGI_RUNS"])


def page(run: Path) -> str:
    """The page of a run's task."""
    job, options = json.loads((run / "job").read_text())
    task = Dbt(job=job, options=json.dumps(options), run_id=run.name).task_id
    return f"{os.environ['SWITCHYARD_UI_URL']}/static/visualiser/index.html#tab=graph&taskId={quote(task)}"


def asked() -> list[Path]:
    """All runs that the worker knows, the oldest first."""
    return [file.parent for file in sorted(RUNS.glob("*/job"), key=os.path.getmtime)]


def active() -> list[dict[str, str]]:
    """The runs in progress."""
    return [
        {
            "run_id": run.name,
            "job": json.loads((run / "job").read_text())[0],
            "url": page(run),
            "state": "running" if (run / "begun").exists() else "queued",
        }
        for run in asked()
        if not (run / "ended").exists()
    ]


def run(job: str, options: jobs.Options) -> bool:
    """Run ``job``, emit its events, and return whether it succeeded."""
    others = active()
    began, here = time.monotonic(), RUNS / uuid.uuid4().hex
    here.mkdir(parents=True)
    (here / "asked").write_text(json.dumps([job, asdict(options)]))
    (here / "asked").rename(here / "job")  # in one step, because the worker looks for this file
    api.emit("started", job=job, run_id=here.name, url=page(here))
    if others:
        api.emit("progress", message="waits for " + ", ".join(f"{one['job']}, {one['state']}: {one['url']}" for one in others))
    while not (here / "ended").exists():
        time.sleep(0.2)
    end = json.loads((here / "ended").read_text())
    records = results.read(here)
    for record in records:
        api.emit("node", **record)
    good, canceled = end["code"] == 0, (here / "canceled").exists()
    api.emit(
        "finished",
        state="success" if good else "canceled" if canceled else "failure",
        seconds=round(time.monotonic() - began, 1),
        message=None if good or canceled or records else end["message"],
    )
    return good


def rerun() -> bool:
    """Run the newest job again if it failed."""
    runs = asked()
    if not runs or (runs[-1] / "succeeded").exists():
        return api.nothing_failed("The last run succeeded." if runs else "There is no run yet.")
    job, options = json.loads((runs[-1] / "job").read_text())
    return run(job, jobs.Options(**options))


def cancel() -> list[dict[str, str]]:
    """Cancel the runs in progress, and return them when they have ended."""
    runs = active()
    for one in runs:
        (RUNS / one["run_id"] / "canceled").touch()
    api.wait_for_end(runs, active)
    return runs


if __name__ == "__main__":
    api.main(run, rerun, active, cancel)
