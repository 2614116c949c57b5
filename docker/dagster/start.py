"""``python start.py COMMAND...``: end the runs that the last code server left in progress, delete old ones, and become COMMAND.

If the machine or the container was killed, or both the server and a run's process, no process could report the run's end. The run
would stay "started" forever, and keep the only place in the queue. When this starts, all processes from before have ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from rundbt import api, project_files, retention, warm

if TYPE_CHECKING:
    from dagster import DagsterInstance


def end_interrupted_runs(before: datetime) -> None:
    """Report runs as failed that are in progress and were last updated before ``before``."""
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

    if sys.platform == "linux":
        warm.end_with_parent(os.getppid(), signal.SIGTERM)
    # The webserver creates the tables of a new database; two processes that do so at once fail.
    api.wait_for_answer(os.environ["DAGSTER_URL"] + "/server_info", 600, "Dagster's webserver")
    statuses = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    with DagsterInstance.get() as instance:
        # With workers, the runs are in other containers (workers.py).
        found = [] if os.environ.get("WORKERS") else instance.get_runs(RunsFilter(statuses=statuses, updated_before=before))
        for run in found:
            instance.report_run_failed(run, "The run's process ended without reporting: it was killed, or the machine stopped.")
        delete_old_runs(instance, before - timedelta(days=int(os.environ["RETENTION_DAYS"])))


def delete_old_runs(instance: DagsterInstance, before: datetime) -> None:
    """Delete the runs that were created before ``before``, and the logs of dbt and Dagster for them."""
    from dagster import DagsterRunStatus, RunsFilter

    ended = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    while found := instance.get_runs(RunsFilter(statuses=ended, created_before=before), limit=100):
        for run in found:
            instance.delete_run(run.run_id)
            shutil.rmtree(Path(os.environ["DAGSTER_HOME"], "storage", run.run_id), ignore_errors=True)


def exec_command(command: list[str]) -> None:
    """Start a warm dbt, and become ``command``."""
    if os.environ.get("DAGSTER_TABLE_METADATA") == "true":
        add_dbt()
    project_files.share_files()
    warm.exec_command(command)


def add_dbt() -> None:
    """Let dagster-dbt import dbt, which has a separate environment. The locks have the same version of each package in both.

    This has to happen before the start: Dagster imports dagster-dbt before the definitions, and dagster-dbt looks for dbt only once.
    """
    dbt = warm.find_dbt(os.environ["PATH"])
    if dbt is None:  # the definitions report that when they parse the project
        return
    base = str(Path(dbt).parents[1])
    site = sysconfig.get_path("purelib", vars={"base": base})
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], site])


if __name__ == "__main__":
    if sys.argv[1] == "--end-interrupted-runs":
        end_interrupted_runs(datetime.fromtimestamp(float(sys.argv[2]), timezone.utc))
    elif "celery" in sys.argv:  # a worker: the code server deletes all old runs, but only the folders on its own machine
        oldest = datetime.now(timezone.utc) - timedelta(days=int(os.environ["RETENTION_DAYS"]))
        retention.delete_folders(Path(os.environ["DAGSTER_HOME"], "storage").glob("*"), oldest)
        exec_command(sys.argv[1:])
    else:
        now = str(datetime.now(timezone.utc).timestamp())
        subprocess.Popen([sys.executable, __file__, "--end-interrupted-runs", now], stdin=subprocess.DEVNULL)
        exec_command(sys.argv[1:])
