"""Airflow's LocalExecutor, in which the boxes of a dbt build cost no process each.

A box is Cosmos' own task for a seed, snapshot or model. At its first try there is nothing to do but to show how one ``dbt build`` fares
with that node. In a process of its own, each would import Airflow and build the whole DAG for that; over the Task Execution API, each
would cost the API server as much as dbt takes for a small model. So the executor itself, which is a part of the scheduler, notes in
the database what that API would: when dbt began with the node, when it ended, and how. A box that a person clears when its build is
over is run as usual, and runs dbt for its one node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import datetime
from getpass import getuser
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.executors.local_executor import LocalExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.net import get_hostname
from airflow.utils.session import create_session
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

import builds

WORKERS = 4  # processes, for what does run by itself
PATIENCE = 0.5  # seconds between two looks into the database for something to do
EVERY = 0.1  # seconds between two looks at what is in progress
HEARTBEAT = 30  # seconds; Airflow gives a task up after 300 without
OPEN = (TaskInstanceState.QUEUED, TaskInstanceState.RESTARTING, TaskInstanceState.RUNNING)


class Gone(Exception):
    """The task instance is no longer the one that was handed over."""


class Box:
    """A task instance that shows how a build fares with one node."""

    def __init__(self, workload: ExecuteTask) -> None:
        self.key, self.node, self.id = workload.key, workload.ti.task_id, workload.ti.id
        self.log = Path(conf.get_mandatory_value("logging", "base_log_folder"), workload.log_path or "")
        self.told = 0  # of the node's messages
        self.alive = 0.0  # when the database last heard of it, as `time.monotonic`

    def follow(self, node: builds.Node | None, over: str | None) -> TaskInstanceState | None:
        """Note what is new in the database and in the task's log.

        Args:
            node: how dbt fares with the node; None when it has not come to it.
            over: how the build ended; None while it goes on.

        Returns:
            How the task ended, or None.

        Raises:
            Gone: the task has been ended, cleared or deleted by somebody else.
        """
        if node is None and over is None:
            return None
        nothing = f"dbt did nothing for this node; its build ended with {over}."
        shown = node or builds.Node(messages=[(timezone.utcnow().isoformat(), nothing)])
        self._write(shown.messages)
        ended = shown.finished or over is not None
        if not ended and self.alive and time.monotonic() - self.alive < HEARTBEAT:
            return None
        with create_session(scoped=False) as session:  # of its own: who holds one box waits for no other
            ti = session.get(TaskInstance, self.id, with_for_update={"of": TaskInstance})
            if ti is None or ti.state not in OPEN:
                raise Gone
            if not self.alive:
                ti.start_date, ti.end_date = _time(shown.started), None
                ti.hostname, ti.unixname, ti.pid = get_hostname(), getuser(), os.getpid()
                self._enter(ti, TaskInstanceState.RUNNING, session)
            ti.last_heartbeat_at = timezone.utcnow()
            self.alive = time.monotonic()
            if not ended:
                return None
            if shown.sql and shown.sql.exists():
                ti.update_rtif({"compiled_sql": shown.sql.read_text(encoding="utf-8").strip()}, session=session)
            good = shown.good if node else over == TaskInstanceState.SUCCESS
            ti.end_date = _time(shown.finished)
            ti.set_duration()
            self._enter(ti, TaskInstanceState.SUCCESS if good else TaskInstanceState.FAILED, session)
            return ti.state

    def _enter(self, ti: TaskInstance, state: TaskInstanceState, session: Session) -> None:
        ti.state = state
        session.add(Log(state.value, ti, extra=json.dumps({"host_name": ti.hostname})))

    def _write(self, messages: Sequence[tuple[str, str]]) -> None:
        """Add to the task's log what is not in it yet."""
        if len(messages) == self.told:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as file:
            for when, text in messages[self.told :]:
                file.write(json.dumps({"timestamp": when, "level": "info", "event": text}) + "\n")
        self.told = len(messages)


class BoxExecutor(LocalExecutor):
    """See the module. The scheduler's idle sleep is to be 0: `sync` waits in its place, and no longer than until something ended."""

    def start(self) -> None:
        """Start the workers, with what every task needs imported already."""
        import airflow.sdk.execution_time.supervisor
        import airflow.sdk.execution_time.task_runner  # noqa: F401

        import dag_factory  # noqa: F401

        self.boxes: dict[tuple[str, str], list[Box]] = {}  # by DAG and run
        self.progress: dict[str, builds.Progress] = {}  # by the id of the build's task instance
        self.busy = False
        self.left = time.monotonic()  # `sync`, the last time
        super().start()

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        self.busy = True
        others = []
        for workload in workload_list:
            if isinstance(workload, ExecuteTask) and workload.ti.queue == builds.QUEUE and self._shows_a_build(workload.ti):
                del self.queued_tasks[workload.key]
                self.boxes.setdefault((workload.ti.dag_id, workload.ti.run_id), []).append(Box(workload))
            else:
                others.append(workload)
        super()._process_workloads(others)

    def _spawn_workers_with_gc_freeze(self, spawn_number: int) -> None:
        """Boxes need no worker, so that there are fewer than tasks that the scheduler may hand over at once."""
        super()._spawn_workers_with_gc_freeze(min(spawn_number, WORKERS - len(self.workers)))

    def sync(self) -> None:
        """Take in what ended. When the scheduler has nothing else to do, wait until something does, or `PATIENCE` is over.

        With many boxes the scheduler's own turn is long. It rests as long as it worked, and finds the more to do.
        """
        entered = time.monotonic()
        rested = entered + min(PATIENCE, entered - self.left)
        deadline = rested if self.busy else entered + PATIENCE
        self.busy = False
        while True:
            super().sync()
            self._follow()
            now = time.monotonic()
            if now >= deadline or (self.event_buffer and now >= rested):
                self.left = now
                return
            time.sleep(EVERY)

    def _shows_a_build(self, ti: Any) -> bool:
        """Whether there is a build for this try of a box to show. Without, it is a later try, which runs dbt itself."""
        build = self._build(ti.dag_id, ti.run_id)
        return build is not None and (ti.try_number == 1 or build.state not in State.finished)

    def _build(self, dag_id: str, run_id: str) -> Any:
        """Id and state of the task that runs dbt in a run."""
        wanted = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == builds.TASK)
        with create_session() as session:
            return session.execute(select(TaskInstance.id, TaskInstance.state).where(*wanted)).one_or_none()

    def _follow(self) -> None:
        """Note what has become of each box."""
        progress = {}
        for (dag_id, run_id), boxes in list(self.boxes.items()):
            build = self._build(dag_id, run_id)
            if build is None:  # somebody deleted the run
                del self.boxes[dag_id, run_id]
                continue
            told = self.progress.get(build.id) or builds.Progress(builds.folder_of(dag_id, str(build.id)))
            told.read()
            progress[build.id] = told
            over = build.state if build.state in State.finished else None
            self.boxes[dag_id, run_id] = [box for box in boxes if self._goes_on(box, told.nodes.get(box.node), over)]
        self.boxes = {run: boxes for run, boxes in self.boxes.items() if boxes}
        self.progress = progress

    def _goes_on(self, box: Box, node: builds.Node | None, over: str | None) -> bool:
        try:
            state = box.follow(node, over)
        except Gone:
            return False
        if state:
            self.change_state(box.key, state)
        return state is None


def _time(text: str) -> datetime:
    return timezone.parse(text) if text else timezone.utcnow()
