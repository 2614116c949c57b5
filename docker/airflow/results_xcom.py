"""Passes dbt's results of a task to `run_job.py`, through XCom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rundbt import project_files, results

KEY = "dbt_results"
# Cosmos' task that runs ``dbt build``.
PRODUCER = "dbt.dbt_producer_watcher"
WATCHED = ("model", "seed", "snapshot")  # nodes with a task that watches the producer
FAIL_FAST = "Skipping due to fail_fast"  # dbt's message for a node that it does not log


def push_results(project_dir: str, context: Any) -> None:
    """Cosmos' ``callback``: called when dbt has ended, whether it succeeded or failed.

    Args:
        project_dir: the folder that dbt worked in.
        context: Airflow's context of the task.
    """
    nodes = results.read(Path(project_dir, "target"))
    file = Path(project_dir, "logs", "dbt.log")
    error = None
    # dbt failed before the first node, or at an ephemeral model, of which it has no result; the reason is in its log.
    if not results.failures(nodes) and file.exists():
        log = "\n".join(json.loads(line)["info"]["msg"] for line in file.read_text(encoding="utf-8").splitlines())
        _, found, text = log.rpartition("Encountered an error:")
        error = results.COLOUR.sub("", text).strip() if found or nodes else None
    context["ti"].xcom_push(KEY, {"nodes": nodes, "error": error})
    if nodes and context["ti"].task_id == PRODUCER:  # without nodes, dbt was killed, and Cosmos' records from dbt's log are right
        for key, value in left_out(json.loads(manifest().read_bytes()), nodes).items():
            context["ti"].xcom_push(key, value)


def manifest() -> Path:
    """The current manifest, or else the last one. Current, because a model that was added during the run has a task in it, too."""
    try:
        return project_files.ensure_manifest()[0]
    except (project_files.ParseFailed, OSError):  # OSError: a project file is just being saved
        return project_files.target_dir() / "manifest.json"


def left_out(manifest: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """The XComs, by key, that Cosmos' tasks wait for, for nodes and tests that dbt left out. Without them they would wait forever.

    As in Cosmos' own trigger, a node that dbt did not run counts as done if dbt succeeded.

    Args:
        manifest: the content of dbt's ``manifest.json``.
        records: the records of the run, see `rundbt.results`.
    """
    reached = {record["unique_id"] for record in records if record["message"] != FAIL_FAST}
    good = bool(records) and not results.left(records)
    # For a microbatch model, dbt logs the end of each batch like that of the model; for a node that a failed hook skips, no status at all.
    undone = {record["unique_id"] for record in records if not good and record["status"] in ("skipped", "partial success")}
    found: dict[str, Any] = {}
    for unique_id in (unique_id for unique_id, node in manifest["nodes"].items() if node["resource_type"] in WATCHED):
        key = unique_id.replace(".", "__")
        if unique_id not in reached - undone:
            found[f"{key}_status"] = {"status": "success" if good else "failed", "outlet_uris": []}
        tests = {child for child in manifest.get("child_map", {}).get(unique_id, ()) if child.startswith("test.")}
        if tests - reached:
            found[f"{key}_tests_status"] = "pass" if good else "fail"
    return found
