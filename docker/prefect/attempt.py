"""One attempt of a flow run at its dbt commands: their target folder, and the table artifact from which `invoke run` reads the results."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from typing import Any

from prefect import get_client
from prefect.artifacts import create_table_artifact
from prefect.exceptions import Abort

from rundbt import project_files, results
from rundbt.jobs import Job

RESULTS = ("run_results.json", "sources.json")
RETRYABLE = {"build", "run", "test", "seed", "snapshot"}  # all commands of jobs but `source freshness`, which dbt cannot retry
KEPT = 10  # flow runs whose results are kept, for a retry


class Attempt:
    """A context for dbt in which SIGTERM, Prefect's signal to cancel, interrupts dbt like Ctrl+C.

    dbt then cancels its queries. With the exception that Prefect raises by itself, dbt would wait for them.

    Attributes:
        target: dbt's target folder: one per flow run, with the newest parse, and the results of the attempt before this one.
    """

    def __init__(self, flow_run: str, number: int) -> None:
        """Create the target folder.

        Args:
            flow_run: the flow run's id.
            number: the attempt's number; above 1 it is a retry.
        """
        self._records: dict[str, dict[str, Any]] = {}
        self._flow_run, self._number = flow_run, number
        self._interrupted = False
        self._runs = project_files.target_dir() / "flow-runs"
        self.target = self._runs / flow_run
        self.target.mkdir(parents=True, exist_ok=True)
        project_files.adopt_baked()
        with suppress(FileNotFoundError):  # the project has never been parsed
            shutil.copy(project_files.target_dir() / "partial_parse.msgpack", self.target)
        self._before = self._invocations()

    @property
    def records(self) -> list[dict[str, Any]]:
        """dbt's results of its nodes so far; see `rundbt.results`."""
        return list(self._records.values())

    def commands(self, job: Job) -> list[list[str]]:
        """The dbt commands to run: the job's, or on a retry only what failed and what was skipped, if `dbt retry` can run that."""
        if self._number > 1 and not job.before and self._last_command() in RETRYABLE and self._is_retryable():
            return [["retry"]]
        for name in RESULTS:  # left by the attempt before
            (self.target / name).unlink(missing_ok=True)
        return [list(args) for args in job.commands]

    def collect(self) -> None:
        """Collect the results of the dbt command that has just ended."""
        if self._invocations() != self._before:
            self._before = self._invocations()
            self._records |= {record["unique_id"]: record for record in results.read(self.target)}

    def __enter__(self) -> Attempt:
        self._handler = signal.getsignal(signal.SIGTERM)
        if os.name != "nt":  # on Windows, Prefect sends no real signal
            signal.signal(signal.SIGTERM, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        self._publish()
        if self._interrupted:
            with get_client(sync_client=True) as client:
                if client.read_flow_run(self._flow_run).state.is_cancelling():
                    raise Abort  # leave the state alone: the worker sets it to Cancelled in any case
            signal.raise_signal(signal.SIGTERM)

    def _interrupt(self, *_: object) -> None:
        if not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt

    def _publish(self) -> None:
        """Publish the results, keep the parse for the next flow run, and delete what is no longer needed."""
        self.collect()
        create_table_artifact(self.records, key="dbt-nodes", description="dbt's result for each node.")
        with suppress(FileNotFoundError):  # dbt failed before that
            os.replace(self.target / "partial_parse.msgpack", project_files.target_dir() / "partial_parse.msgpack")
        for path in self.target.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in RESULTS or self._interrupted:  # dbt retry would leave out what an interrupted dbt did not reach
                path.unlink(missing_ok=True)
        for old in sorted(self._runs.iterdir(), key=lambda folder: folder.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def failures(self) -> list[str]:
        """Kind and name of each node that failed; or why nodes were skipped, if an ephemeral model failed, of which dbt has no result."""
        failed = [f"{record['kind']} {record['name']}" for record in results.failures(self.records)]
        return failed or sorted({record["message"] for record in results.left(self.records) if record["message"]})

    def _invocations(self) -> list[str]:
        """The dbt commands that wrote the artifacts."""
        return [self._artifact(name).get("metadata", {}).get("invocation_id", "") for name in RESULTS]

    def _is_retryable(self) -> bool:
        try:
            manifest, _ = project_files.ensure_manifest()
        except project_files.ParseFailed:
            return True  # dbt itself reports the error
        return results.retryable(results.read(self.target), json.loads(manifest.read_bytes()))

    def _last_command(self) -> str:
        return self._artifact("run_results.json").get("args", {}).get("which", "")

    def _artifact(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.target / name).read_bytes())
        except FileNotFoundError:
            return {}
