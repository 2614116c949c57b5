"""The Prefect flow that runs dbt.

dbt runs inside the flow run's process and tells what it does through its events: a node that starts becomes a task run,
which ends as dbt says that the node ended. prefect-dbt supplies dbt's settings, so that ``profiles.yml`` may name
Prefect blocks and variables. Its runner is not used: for every node it loads all of Prefect's settings anew, twice,
which takes longer than dbt's own work, and it shows no skipped nodes.

Nor is Prefect's task engine, which would only wait, in a thread per node, for what dbt does. The task runs come to be as
the engine's do, through events from which the server records them, but all that is new is told in one request.
"""

from __future__ import annotations

import ctypes
import json
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Literal
from uuid import UUID, uuid5

from dbt.adapters.factory import FACTORY
from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest
from prefect import flow, get_client
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.context import get_run_context
from prefect.states import Cancelled, Completed, Crashed, Failed, Running
from prefect_dbt import PrefectDbtSettings

from switchyard import project, results
from switchyard.jobs import JOBS
from switchyard.warm import compile_macros

Record = dict[str, Any]
FLOW = "dbt"
LEVELS = {"warn": logging.WARNING, "error": logging.ERROR}
TESTS = ("test", "unit_test")
NODE_EVENTS = ("NodeStart", "NodeFinished")
MESSAGE = 100_000  # characters of a state's message that Prefect's own engine tells


class Parsed:
    """The parsed project in memory, for the flow runs that are forked from this process.

    Attributes:
        manifest: what dbt made of the project, or None when it is not known.
    """

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self._fingerprint = ""
        self._file: tuple[int, ...] = ()

    def refresh(self) -> bool:
        """Parse the project, if dbt has done so, and with success, since this was last asked; return whether it was.

        With the modules in memory, and from the parse that dbt left, that takes a fraction of a second. What nobody has
        parsed yet is left to the next flow run, where it can be seen, be cancelled, and fail.
        """
        if self._left() == self._file:
            return False
        fingerprint = project.fingerprint()
        parse = dbtRunner().invoke(["--log-level", "none", "--log-level-file", "none", "parse"])
        self.manifest, self._fingerprint, self._file = parse.result if parse.success else None, fingerprint, self._left()
        if self.manifest:
            compile_macros(self.manifest)
        return True

    def current(self) -> Manifest | None:
        """The manifest, if the project is still as it was parsed."""
        return self.manifest if self._fingerprint == project.fingerprint() else None

    @staticmethod
    def _left() -> tuple[int, ...]:
        """What tells the file in which dbt leaves its parse from any before it."""
        try:
            status = (project.target_dir() / "partial_parse.msgpack").stat()
        except FileNotFoundError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns


parsed = Parsed()


@flow(name=FLOW, description="Run a job: dbt over the whole project or a part of it, with one task run per dbt node.")
def dbt(job: Literal[tuple(JOBS)]) -> State:
    """Run the dbt command of ``job``.

    Returns:
        Failed when dbt failed; the message names the nodes, or is dbt's own where it could not start.
    """
    settings = PrefectDbtSettings()
    run = Run(job, settings.target_path)
    events: SimpleQueue[Any] = SimpleQueue()
    outcome: Future[dbtRunnerResult] = Future()
    with settings.resolve_profiles_yml() as profiles_dir:
        command = ["--log-level", "none", "--no-use-colors", *JOBS[job].dbt_args, "--profiles-dir", profiles_dir]
        # In a thread of its own, because it is the flow's thread that hears when it is cancelled.
        thread = threading.Thread(target=invoke, args=(command, events, outcome), daemon=True)
        thread.start()
        try:
            while not (outcome.done() and events.empty()):
                with suppress(Empty):
                    run.handle(events.get(timeout=0.2))
                run.publish(every=1)
        except BaseException:  # such as a cancellation
            interrupt(thread)
            raise
        finally:
            run.finish()

    dbt_result = outcome.result()
    if dbt_result.success:
        return Completed(message=f"{len(run.records)} dbt nodes")
    if dbt_result.exception:
        return Failed(message=str(dbt_result.exception).strip())
    broken = [f"{record['kind']} {record['name']}" for record in results.failures(run.records)]
    return Failed(message=f"dbt reports {len(broken)} failed: {', '.join(broken)}" if broken else "dbt failed; the log tells why")


def invoke(command: list[str], events: SimpleQueue[Any], outcome: Future[dbtRunnerResult]) -> None:
    """Run dbt, passing on its events: those of nodes, and what it would tell a person on the screen."""

    def on_event(event: Any) -> None:
        if event.info.level != "debug" or event.info.name in NODE_EVENTS:
            events.put(event)

    try:
        outcome.set_result(dbtRunner(parsed.current(), callbacks=[on_event]).invoke(command))
    except BaseException as error:  # whatever it is, the flow must not wait for ever
        outcome.set_exception(error)


def interrupt(thread: threading.Thread) -> None:
    """End dbt as Ctrl-C does, so that it leaves no query on the server, where one goes on without the process that asked it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))
    for adapter in FACTORY.adapters.values():  # the thread hears of it when what it waits for is over
        with adapter.connection_named("interrupt"):
            adapter.cancel_open_connections()
    thread.join(timeout=15)


@dataclass
class TaskRun:
    """The task run of a dbt node, as far as it is known.

    Attributes:
        id: Prefect's; the same when the flow run is retried.
        node: dbt's unique id.
        parents: the task runs of the nodes that this one reads.
        started: when dbt began with it.
        ended: when dbt was done with it; None while it is not.
    """

    id: UUID
    node: str
    parents: list[UUID]
    started: datetime
    ended: datetime | None = None


class Run:
    """The dbt nodes of a flow run: their task runs, and the table of their results among the flow run's artifacts."""

    def __init__(self, job: str, target: Path) -> None:
        self.records: list[Record] = []
        self._is_build = JOBS[job].dbt_args[0] == "build"
        self._target = target
        for name in ("run_results.json", "sources.json"):
            (target / name).unlink(missing_ok=True)  # those of the run before
        self._parents: dict[str, list[str]] = {}
        self._task_runs: dict[str, TaskRun] = {}
        self._states: dict[str, State] = {}  # those that are to be told; of a node that ends at once, how it ended
        self._logs: list[Record] = []
        self._flow_run = get_run_context().flow_run
        self._related = [
            {"prefect.resource.id": f"prefect.{role}.{id}", "prefect.resource.name": name, "prefect.resource.role": role}
            for role, id, name in (
                ("flow-run", self._flow_run.id, self._flow_run.name),
                ("flow", self._flow_run.flow_id, FLOW),
                ("deployment", self._flow_run.deployment_id, job),
            )
        ]
        self._client = get_client(sync_client=True)
        self._table = create_table_artifact([], key=f"dbt-{job.replace('_', '-')}", description=JOBS[job].description)
        self._published = 0
        self._published_at = monotonic()

    def handle(self, event: Any) -> None:
        """React to one of dbt's events."""
        if event.info.name not in NODE_EVENTS:
            self._log(event.info)
            return
        node_info = event.data.node_info
        if node_info.resource_type == "exposure":  # dbt names it, and does nothing for it
            return
        # The graph of a build is its lineage: a test joins it when it has something to say.
        hidden = self._is_build and node_info.resource_type in TESTS
        at = event.info.ts.ToDatetime(timezone.utc)
        if event.info.name == "NodeFinished":
            record = finished_record(node_info, event.data.run_result)
            self.records.append(record)
            if not hidden or record["status"] not in ("pass", "skipped"):
                self._end(record, at)
        elif not hidden:
            self._start(node_info.unique_id, at)

    def _log(self, info: Any) -> None:
        """Keep what dbt says for the flow run's log, and print it for this process's."""
        if text := info.msg.strip():
            print(text, flush=True)
            self._logs.append({
                "flow_run_id": str(self._flow_run.id),
                "name": "prefect.flow_runs",
                "level": LEVELS.get(info.level, logging.INFO),
                "message": text,
                "timestamp": info.ts.ToJsonString(),
            })  # fmt: skip

    def _start(self, unique_id: str, at: datetime) -> None:
        if not self._parents:
            manifest = self._target / "manifest.json"  # written before the first node starts
            self._parents = json.loads(manifest.read_text())["parent_map"]
        parents = [self._task_runs[parent].id for parent in self._parents.get(unique_id, []) if parent in self._task_runs]
        self._task_runs[unique_id] = TaskRun(uuid5(self._flow_run.id, unique_id), unique_id, parents, at)
        self._states[unique_id] = Running(timestamp=at)

    def _end(self, record: Record, at: datetime) -> None:
        if record["unique_id"] not in self._task_runs:
            self._start(record["unique_id"], at)
        task_run = self._task_runs[record["unique_id"]]
        if not task_run.ended:
            task_run.ended = at
            self._states[task_run.node] = end_state(record, at)

    def publish(self, every: float = 0) -> None:
        """Tell the server what is new for the table, the log and the task runs, if ``every`` seconds have gone by."""
        if monotonic() - self._published_at < every:
            return
        if len(self.records) > self._published:
            self._client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(self.records)))
            self._published = len(self.records)
        if self._logs:
            self._client.create_logs(self._logs)
            self._logs = []
        if self._states:
            events = [self._event(self._task_runs[unique_id], state) for unique_id, state in self._states.items()]
            self._client.request("POST", "/events", json=events)
            self._states = {}
        self._published_at = monotonic()

    def _event(self, task_run: TaskRun, state: State) -> Record:
        """What tells Prefect's server of a task run's new state, in the words of Prefect's task engine."""
        name = results.node_record({"unique_id": task_run.node, "status": state.name})["name"]
        occurred, message = state.timestamp.isoformat(), (state.message or "")[:MESSAGE]
        return {
            "id": str(state.id),
            "event": f"prefect.task-run.{state.name}",
            "occurred": occurred,
            "resource": {
                "prefect.resource.id": f"prefect.task-run.{task_run.id}",
                "prefect.resource.name": name,
                "prefect.run-count": str(self._flow_run.run_count),
                "prefect.state-message": message,
                "prefect.state-name": state.name,
                "prefect.state-timestamp": occurred,
                "prefect.state-type": state.type.value,
                "prefect.orchestration": "client",
            },
            "related": self._related,
            "payload": {
                "validated_state": {"type": state.type.value, "name": state.name, "message": message},
                "task_run": {
                    "name": name,
                    "task_key": "node",
                    "dynamic_key": task_run.node,
                    "task_inputs": {"wait_for": [{"input_type": "task_run", "id": str(parent)} for parent in task_run.parents]},
                    "labels": {},
                    "run_count": self._flow_run.run_count,
                    "flow_run_run_count": self._flow_run.run_count,
                    "expected_start_time": task_run.started.isoformat(),
                    "start_time": task_run.started.isoformat(),
                    "end_time": task_run.ended and task_run.ended.isoformat(),
                    "total_run_time": (task_run.ended - task_run.started).total_seconds() if task_run.ended else 0,
                },
            },
        }

    def finish(self) -> None:
        """Complete what the events told with what dbt wrote at its end, and end every task run."""
        for name in ("run_results.json", "sources.json"):
            with suppress(FileNotFoundError):
                known = {record["unique_id"] for record in self.records}
                written = results.node_records(json.loads((self._target / name).read_text()))
                self.records += [record for record in written if record["unique_id"] not in known]
        now = datetime.now(timezone.utc)
        for record in self.records:
            if record["unique_id"] in self._task_runs:
                self._end(record, now)
        for unique_id, task_run in self._task_runs.items():
            if not task_run.ended:
                task_run.ended = now
                self._states[unique_id] = Crashed(message="The flow run was interrupted.", timestamp=now)
        self.publish()


def finished_record(node_info: Any, run_result: Any) -> Record:
    """The record of a node from the event of its end, where dbt fills in a zero for what it does not know."""
    tested = run_result.status in ("pass", "fail", "warn") and node_info.resource_type in TESTS
    written = run_result.status == "success" and "rows_affected" in run_result.adapter_response
    return results.node_record({
        "unique_id": node_info.unique_id,
        "status": run_result.status,
        "message": run_result.message,
        "execution_time": run_result.execution_time,
        "failures": run_result.num_failures if tested else None,
        "adapter_response": {"rows_affected": int(run_result.adapter_response["rows_affected"])} if written else {},
    })  # fmt: skip


def end_state(record: Record, at: datetime) -> State:
    """The state in which the task run of a node ends."""
    message = record["message"] or f"{record['seconds']} s" + ("" if record["rows"] is None else f", {record['rows']} rows")
    if results.failures([record]):
        return Failed(message=message, timestamp=at)
    if record["status"] == "skipped":
        return Cancelled(name="Skipped", message="Something that it depends on failed.", timestamp=at)
    return Completed(name="Warned" if record["status"] == "warn" else "Completed", message=message, timestamp=at)
