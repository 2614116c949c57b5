"""Runs on workers (WORKERS in .env): records where each one runs, and fails it when its worker is lost."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import Any

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunsFilter,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)
from kombu.exceptions import OperationalError

from webserver import WORKER

TASK = "dagster-celery/task_id"  # the tag of a run with the id of its Celery task
POLL_S = 12  # seconds between two checks
ANSWER_TIMEOUT_S = 3  # seconds that workers have to answer
LOOKS = 3  # checks in a row without a worker that has the run, before it counts as lost
LOOKS_WITHOUT_ANSWER = 4  # the same when no worker answers at all: the broker may be starting
UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
LOST = "No worker is running it any more: its worker was killed, or lost its connection."


def note(instance: DagsterInstance, run_id: str) -> None:
    """Tag a run with this process's worker, if there are workers."""
    if os.environ.get("WORKERS"):
        instance.add_run_tags(run_id, {WORKER: socket.gethostname()})


@sensor(
    name="workers",
    description="Fails a run that no worker has any more.",
    minimum_interval_seconds=POLL_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def watch(context: SensorEvaluationContext) -> SensorResult:
    """Ask the workers for their runs. The cursor has, by run id, the number of checks in a row at which no worker had the run."""
    before = json.loads(context.cursor or "{}")
    lost: dict[str, int] = {}
    instance = context.instance
    runs = instance.get_runs(RunsFilter(statuses=UNDER_WAY))
    if runs:
        answers = ask(instance)
        there = {task["id"] for tasks in answers.values() for task in tasks}
        for run in runs:
            if run.tags.get(TASK) not in there:
                lost[run.run_id] = before.get(run.run_id, 0) + 1
                if lost[run.run_id] >= (LOOKS if answers else LOOKS_WITHOUT_ANSWER):
                    end(instance, run)
    return SensorResult(cursor=json.dumps(lost))


def ask(instance: DagsterInstance) -> dict[str, list[dict[str, Any]]]:
    """The tasks of each worker; empty if no worker answers, or the broker does not."""
    try:
        return instance.run_launcher.celery.control.inspect(timeout=ANSWER_TIMEOUT_S).active() or {}
    except (OSError, OperationalError):
        return {}


def end(instance: DagsterInstance, run: DagsterRun) -> None:
    """Fail a lost run, unless it has ended meanwhile. If its worker comes back, the run ends there too."""
    if TASK in run.tags:
        with suppress(OSError, OperationalError):
            instance.run_launcher.terminate(run.run_id)
    known = instance.get_run_by_id(run.run_id)
    if known and not known.is_finished:
        instance.report_run_failed(run, LOST)
