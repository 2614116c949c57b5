"""dbt as a child process that tells, live, what became of each node.

dagster-dbt's own ``DbtCliResource`` is not used to run dbt: at every run it asks ``dbt --version`` and loads a second dbt
into the Dagster process, which doubles the time of a project of this size, and it reports neither failed nor skipped
models nor unit tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from switchyard import project
from switchyard.results import node_record


class DbtProcess:
    """One ``dbt`` command, in a scratch target folder of its own that is gone afterwards.

    Use it as a context manager: however the block is left, by an interrupt too, dbt has ended when it is over.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.args = args
        self.errors: list[str] = []

    def __enter__(self) -> DbtProcess:
        self._scratch = tempfile.TemporaryDirectory(prefix="run-", dir=project.target_dir())
        self.target = Path(self._scratch.name)
        partial_parse = project.target_dir() / "partial_parse.msgpack"
        if partial_parse.exists():
            shutil.copy(partial_parse, self.target)
        self._process = subprocess.Popen(
            # Only at level debug does dbt say what became of a node, right when it is finished.
            [project.DBT, "--log-format", "json", "--log-level", "debug", "--log-level-file", "none", *self.args,
             "--project-dir", str(project.project_dir()), "--target-path", str(self.target)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,  # a signal to Dagster's processes is not for dbt too: two of them spoil its cleaning up
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            if os.name == "posix":
                self._process.send_signal(signal.SIGINT)  # dbt cancels the queries it has on the server
            else:
                self._process.terminate()
            try:
                self._process.communicate(timeout=15)  # and not wait(): dbt stalls when nobody reads what it prints
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._scratch.cleanup()

    def records(self) -> Iterator[dict[str, Any]]:
        """The record (see `switchyard.results`) of each node, as it finishes; dbt's usual output goes to stdout."""
        for line in self._process.stdout:
            try:
                event = json.loads(line)
                info, data = event["info"], event["data"]
            except (ValueError, KeyError, TypeError):  # not one of dbt's events: Python's own warnings, say
                print(line, end="", flush=True)
                continue
            if info["level"] != "debug":
                print(info["msg"], flush=True)
            if info["level"] == "error":
                self.errors.append(info["msg"])
            if info["name"] == "NodeFinished" and data["node_info"]["resource_type"] != "exposure":
                yield node_record(_result(data["node_info"], data["run_result"]))

    def succeeded(self) -> bool:
        """Wait for dbt's end, and return whether it ended well."""
        return self._process.wait() == 0

    def artifact(self, name: str) -> dict[str, Any]:
        """The content of one of the files that dbt wrote, such as ``sources.json``."""
        return json.loads((self.target / name).read_bytes())


def _result(node: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The event's data in the form of an entry of ``run_results.json``.

    The event is a protocol buffer, which knows no null and no integers inside of a structure.
    """
    is_count = node["resource_type"] in ("test", "unit_test") and result["status"] in ("pass", "warn", "fail")
    rows = result["adapter_response"].get("rows_affected")
    return {
        "unique_id": node["unique_id"],
        "status": result["status"],
        "execution_time": result["execution_time"],
        "failures": result["num_failures"] if is_count else None,
        "adapter_response": {} if rows is None else {"rows_affected": int(rows)},
        "message": result["message"] or None,
    }
