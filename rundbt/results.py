"""dbt's ``run_results.json`` and ``sources.json`` as the plain per-node records that the task runner shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# dbt's own list of the statuses that make a run fail (dbt.task.runnable and dbt.task.printer of dbt-core 1.11).
FAILED = {"error", "fail", "runtime error", "partial success"}

COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # and all else that a terminal takes for a command, such as "erase the line"


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of the artifacts that a dbt command has left.

    Args:
        folder: the command's target folder, which holds the artifacts of no other command.

    Returns:
        What `node_records` makes of ``run_results.json`` and ``sources.json``; an empty list where dbt wrote neither, because it
        did not come as far as the first node.
    """
    files = (folder / name for name in ("run_results.json", "sources.json"))
    return [record for file in files if file.exists() for record in node_records(json.loads(file.read_bytes()))]


def node_records(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per dbt node of a run.

    Args:
        artifact: the content of dbt's ``run_results.json`` (schema v6) or ``sources.json`` (schema v3).

    Returns:
        Dictionaries with ``unique_id``, ``name``, ``kind`` (model, seed, snapshot, test, unit_test, source, operation),
        ``status`` (dbt's own word), ``seconds``, ``rows`` (rows written, or rows a test found; None when dbt does not
        know) and ``message`` (dbt's text, without colour codes, where the node did not simply succeed, else None). Exposures,
        which dbt lists as well although it does nothing for them, are left out.
    """
    return [node_record(result) for result in artifact["results"] if not result["unique_id"].startswith("exposure.")]


def node_record(result: dict[str, Any]) -> dict[str, Any]:
    """The record of one entry of an artifact's ``results``; see `node_records`."""
    unique_id = result["unique_id"]
    kind, _, name = unique_id.split(".", 2)
    if kind == "test":
        name = re.sub(r"\.[0-9a-f]{10}$", "", name)  # a generic test's id ends in a hash, which means nothing to a reader
    elif kind == "unit_test":
        name = name.replace(".", "::", 1)
    status = result["status"]
    rows = result.get("failures")
    if rows is None and kind != "source":  # of a source dbt counts the one row that it asked for
        rows = (result.get("adapter_response") or {}).get("rows_affected")
    message = None if status in ("success", "pass") else result.get("message") or result.get("error")
    return {
        "unique_id": unique_id,
        "name": name,
        "kind": kind,
        "status": status,
        "seconds": round(result.get("execution_time") or 0.0, 2),
        "rows": rows if isinstance(rows, int) and rows >= 0 else None,
        "message": message and COLOUR.sub("", message),  # hooks and unit tests come in colour
    }


def left(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of what is still to be done: what failed, and what was skipped for it."""
    return [record for record in records if record["status"] in (*FAILED, "skipped")]


def retryable(records: list[dict[str, Any]], manifest: dict[str, Any]) -> bool:
    """Whether `dbt retry` runs what is still to be done.

    It has nothing to do where only a hook failed, and fails at a node that is no more: that was renamed or disabled, or a test whose
    arguments have changed, of which its id has a hash.

    Args:
        records: of the run that failed.
        manifest: the content of dbt's ``manifest.json``, of the project as it is now.
    """
    known = {*manifest["nodes"], *manifest.get("unit_tests", {}), *manifest.get("functions", {})}
    again = [record["unique_id"] for record in left(records) if record["kind"] not in ("source", "operation")]
    return bool(again) and known.issuperset(again)


def failures(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that make a run fail."""
    return [record for record in records if record["status"] in FAILED]
