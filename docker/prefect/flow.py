"""The Prefect flow that runs dbt.

dbt runs inside the flow run's process and tells what it does through its events: a node that starts becomes a task run,
which ends as dbt says that the node ended. prefect-dbt supplies dbt's settings, so that ``profiles.yml`` may name
Prefect blocks and variables. Its runner is not used: for every node it loads all of Prefect's settings anew, twice,
which takes longer than dbt's own work, and it shows no skipped nodes.
"""

from __future__ import annotations

import ctypes
import json
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Literal

from dbt.adapters.factory import FACTORY
from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest
from prefect import allow_failure, flow, get_client, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect_dbt import PrefectDbtSettings

from switchyard import project, results
from switchyard.jobs import JOBS
from switchyard.warm import compile_macros

Record = dict[str, Any]
FLOW = "dbt"
INTERRUPTED = "interrupted"  # beside dbt's own words for how a node ends
LEVELS = {"warn": logging.WARNING, "error": logging.ERROR}
TESTS = ("test", "unit_test")
NODE_EVENTS = ("NodeStart", "NodeFinished")


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
        # In a thread of its own, because only the flow's thread can make task runs, and hears when it is cancelled.
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


class Run:
    """The dbt nodes of a flow run: their task runs, and the table of their results among the flow run's artifacts."""

    def __init__(self, job: str, target: Path) -> None:
        self.records: list[Record] = []
        self._is_build = JOBS[job].dbt_args[0] == "build"
        self._target = target
        for name in ("run_results.json", "sources.json"):
            (target / name).unlink(missing_ok=True)  # those of the run before
        self._parents: dict[str, list[str]] = {}
        self._ends: dict[str, Future[Record]] = {}
        self._task_runs: dict[str, PrefectFuture[Any]] = {}
        self._logs: list[Record] = []
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
        if event.info.name == "NodeFinished":
            record = finished_record(node_info, event.data.run_result)
            self.records.append(record)
            if not hidden or record["status"] not in ("pass", "skipped"):
                self._end(record)
        elif not hidden:
            self._start(node_info.unique_id)

    def _log(self, info: Any) -> None:
        """Keep what dbt says for the flow run's log, and print it for this process's."""
        if text := info.msg.strip():
            print(text, flush=True)
            self._logs.append({
                "flow_run_id": flow_run.id,
                "name": "prefect.flow_runs",
                "level": LEVELS.get(info.level, logging.INFO),
                "message": text,
                "timestamp": info.ts.ToJsonString(),
            })  # fmt: skip

    def _start(self, unique_id: str) -> None:
        if not self._parents:
            manifest = self._target / "manifest.json"  # written before the first node starts
            self._parents = json.loads(manifest.read_text())["parent_map"]
        # Not after a skipped one: Prefect lets nothing follow a task run that was cancelled.
        before = [parent for parent in self._parents.get(unique_id, []) if parent in self._ends and not self._was_skipped(parent)]
        name = results.node_record({"unique_id": unique_id, "status": "started"})["name"]
        self._ends[unique_id] = end = Future()
        self._task_runs[unique_id] = node.submit(name, end, wait_for=[allow_failure(self._task_runs[parent]) for parent in before])

    def _was_skipped(self, unique_id: str) -> bool:
        end = self._ends[unique_id]
        return end.done() and end.result()["status"] == "skipped"

    def _end(self, record: Record) -> None:
        if record["unique_id"] not in self._ends:
            self._start(record["unique_id"])
        end = self._ends[record["unique_id"]]
        if not end.done():
            end.set_result(record)

    def publish(self, every: float = 0) -> None:
        """Bring the table and the log up to date, if they have something new to tell and ``every`` seconds have gone by."""
        if monotonic() - self._published_at < every:
            return
        if len(self.records) > self._published:
            self._client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(self.records)))
            self._published = len(self.records)
        if self._logs:
            self._client.create_logs(self._logs)
            self._logs = []
        self._published_at = monotonic()

    def finish(self) -> None:
        """Complete what the events told with what dbt wrote at its end, and end every task run."""
        for name in ("run_results.json", "sources.json"):
            with suppress(FileNotFoundError):
                known = {record["unique_id"] for record in self.records}
                written = results.node_records(json.loads((self._target / name).read_text()))
                self.records += [record for record in written if record["unique_id"] not in known]
        for record in self.records:
            if record["unique_id"] in self._ends:
                self._end(record)
        for unique_id, end in self._ends.items():
            if not end.done():
                end.set_result(results.node_record({"unique_id": unique_id, "status": INTERRUPTED}))
        self.publish()
        wait(list(self._task_runs.values()))


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


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def node(name: str, end: Future[Record]) -> State:
    """Stand for the dbt node ``name``: wait for its end, and end the same way."""
    record = end.result()
    message = record["message"] or f"{record['seconds']} s" + ("" if record["rows"] is None else f", {record['rows']} rows")
    if record["status"] == INTERRUPTED:
        return Crashed(message="The flow run was interrupted.")
    if results.failures([record]):
        return Failed(message=message)
    if record["status"] == "skipped":
        return Cancelled(name="Skipped", message="Something that it depends on failed.")
    return Completed(name="Warned" if record["status"] == "warn" else "Completed", message=message)
