"""Turns dbt's ``run_results.json`` and ``sources.json`` into the plain per-node records that the task runner shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# dbt's own list of the statuses that make a run fail (dbt.task.runnable and dbt.task.printer of dbt-core 1.11).
FAILED = {"error", "fail", "runtime error", "partial success"}

COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # and other terminal commands, such as "erase the line"


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of the artifacts that a dbt command left.

    Args:
        folder: the command's target folder, without artifacts of other commands.

    Returns:
        The `node_records` of ``run_results.json`` and ``sources.json``; an empty list if dbt wrote neither, because it failed before
        the first node.
    """
    files = (folder / name for name in ("run_results.json", "sources.json"))
    return [record for file in files if file.exists() for record in node_records(json.loads(file.read_bytes()))]


def node_records(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per dbt node of a run.

    Args:
        artifact: the content of dbt's ``run_results.json`` (schema v6) or ``sources.json`` (schema v3).

    Returns:
        Dictionaries with ``unique_id``, ``name``, ``kind`` (model, seed, snapshot, test, unit_test, function,
        saved_query, source, operation), ``status`` (dbt's own word), ``seconds``, ``rows`` (rows written, or rows a test found; None
        when dbt does not know) and ``message`` (dbt's text, without colour codes; None if the node succeeded). Exposures are left out:
        dbt lists them too, although it does nothing for them.
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
    if rows is None and kind != "source":  # for a source, dbt counts the one row of its own query
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
    """The records of what is still to be done: what failed, and what was skipped because of that."""
    return [record for record in records if record["status"] in (*FAILED, "skipped")]


def retryable(records: list[dict[str, Any]], manifest: dict[str, Any]) -> bool:
    """Whether `dbt retry` runs what is still to be done.

    It has nothing to do if only a hook failed. It fails at a node that no longer exists: one that was renamed or disabled, or a test
    whose arguments changed, because its id contains a hash of them.

    Args:
        records: the records of the run that failed.
        manifest: the content of dbt's current ``manifest.json``.
    """
    known = {*manifest["nodes"], *manifest.get("unit_tests", {}), *manifest.get("functions", {}), *manifest.get("saved_queries", {})}
    again = [record["unique_id"] for record in left(records) if record["kind"] not in ("source", "operation")]
    return bool(again) and known.issuperset(again)


def failures(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that make a run fail."""
    return [record for record in records if record["status"] in FAILED]
