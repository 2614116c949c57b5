"""Airflow's LocalExecutor, in which the boxes of a dbt build cost no process each.

A box is Cosmos' own task for a seed, snapshot or model. At its first try there is nothing to do but to show how one ``dbt build`` fares
with that node. In a process of its own, each would import Airflow and build the whole DAG for that. So the executor itself tells the
Task Execution API, as any worker does, when dbt began with the node, when it ended, and how. A box that a person clears
when its build is over is run as usual, and runs dbt for its one node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from getpass import getuser
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.executors.base_executor import get_execution_api_server_url
from airflow.executors.local_executor import LocalExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstance import TaskInstance
from airflow.utils.net import get_hostname
from airflow.utils.session import create_session
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import select

import builds
from switchyard import api

PATIENCE = 0.5  # seconds between two looks into the database for something to do
EVERY = 0.1  # seconds between two looks at what is in progress
HEARTBEAT = 30  # seconds; Airflow gives a task up after 300 without


class Box:
    """A task instance that shows how a build fares with one node.

    Args:
        workload: what the scheduler wants to be run.
        call: sends a method, the last part of the path and a body to the Task Execution API, as this task instance.
    """

    def __init__(self, workload: ExecuteTask, call: Callable[[str, str, Any], None]) -> None:
        self.key, self.node, self.call = workload.key, workload.ti.task_id, call
        self.log = Path(conf.get_mandatory_value("logging", "base_log_folder"), workload.log_path or "")
        self.told = 0  # of the node's messages
        self.alive = 0.0  # when the API last heard of it, as `time.monotonic`

    def follow(self, node: builds.Node | None, over: str | None) -> TaskInstanceState | None:
        """Tell the API and the task's log what is new.

        Args:
            node: how dbt fares with the node; None when it has not come to it.
            over: how the build ended; None while it goes on.

        Returns:
            How the task ended, or None.

        Raises:
            ApiError: the API does not answer, or (404, 409, 410) the task has been ended or cleared by somebody else.
        """
        if node is None and over is None:
            return None
        shown = node or builds.Node(messages=[(_now(), f"dbt did nothing for this node; its build ended with {over}.")])
        if not self.alive:
            self._beat("PATCH", "run", {"state": "running", "unixname": getuser(), "start_date": shown.started or _now()})
        self._write(shown.messages)
        if not shown.finished and over is None:
            if time.monotonic() - self.alive > HEARTBEAT:
                self._beat("PUT", "heartbeat", {})
            return None
        if shown.sql and shown.sql.exists():
            self.call("PUT", "rtif", {"compiled_sql": shown.sql.read_text(encoding="utf-8").strip()})
        good = shown.good if node else over == TaskInstanceState.SUCCESS
        state = TaskInstanceState.SUCCESS if good else TaskInstanceState.FAILED
        self.call("PATCH", "state", {"state": state.value, "end_date": shown.finished or _now()})
        return state

    def _beat(self, method: str, what: str, body: dict[str, Any]) -> None:
        self.call(method, what, {"hostname": get_hostname(), "pid": os.getpid(), **body})
        self.alive = time.monotonic()

    def _write(self, messages: Sequence[tuple[str, str]]) -> None:
        """Add to the task's log what is not in it yet."""
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
        super().start()

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        self.busy = True
        others = []
        for workload in workload_list:
            if isinstance(workload, ExecuteTask) and workload.ti.queue == builds.QUEUE and self._shows_a_build(workload.ti):
                del self.queued_tasks[workload.key]
                self.boxes.setdefault((workload.ti.dag_id, workload.ti.run_id), []).append(Box(workload, self._caller(workload.ti.id)))
            else:
                others.append(workload)
        super()._process_workloads(others)

    def sync(self) -> None:
        """Take in what ended. When the scheduler has nothing else to do, wait until something does, or `PATIENCE` is over."""
        deadline = time.monotonic() + (0 if self.busy else PATIENCE)
        self.busy = False
        while True:
            super().sync()
            self._follow()
            if self.event_buffer or time.monotonic() >= deadline:
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
        """Tell the API what has become of each box."""
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
        except api.ApiError as error:
            if error.status in (404, 409, 410):
                return False
            self.log.warning("The box %s cannot be shown now: %s", box.node, error)
            return True
        if state:
            self.change_state(box.key, state)
        return state is None

    def _caller(self, ti_id: Any) -> Callable[[str, str, Any], None]:
        """What speaks to the Task Execution API in the place of one task instance."""
        url = f"{get_execution_api_server_url(self.conf)}task-instances/{ti_id}"

        def call(method: str, what: str, body: Any) -> None:
            token = self.jwt_generator.generate({"sub": str(ti_id), "scope": "execution"})
            api.request(method, f"{url}/{what}", body, {"Authorization": f"Bearer {token}"}, timeout=5)

        return call


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
