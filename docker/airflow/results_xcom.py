"""Hand dbt's own results of a task to `run_job.py`, through XCom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rundbt import project_files, results

KEY = "dbt_results"
# Cosmos' task that runs ``dbt build``, and the one after it whose state is that of the whole.
PRODUCER = "dbt.dbt_producer_watcher"
WATCHED = ("model", "seed", "snapshot")  # nodes with a task that watches the producer
FAIL_FAST = "Skipping due to fail_fast"  # dbt's message of a node for which it logs nothing


def push_results(project_dir: str, context: Any) -> None:
    """Cosmos' ``callback``: called when dbt has ended, well or not.

    Args:
        project_dir: the folder that dbt worked in.
        context: Airflow's, of the task.
    """
    nodes = results.read(Path(project_dir, "target"))
    file = Path(project_dir, "logs", "dbt.log")
    error = None
    if not nodes and file.exists():  # dbt did not come as far as the first node, and its log says why
        log = "\n".join(json.loads(line)["info"]["msg"] for line in file.read_text(encoding="utf-8").splitlines())
        _, found, text = log.rpartition("Encountered an error:")
        error = text.strip() if found else None
    context["ti"].xcom_push(KEY, {"nodes": nodes, "error": error})
    if nodes and context["ti"].task_id == PRODUCER:  # without, dbt has died, and what it had logged before is right
        for key, value in left_out(json.loads(manifest().read_bytes()), nodes).items():
            context["ti"].xcom_push(key, value)


def manifest() -> Path:
    """The manifest of the project as it is now, or else the last one: a model that was added during the run has a task in it, too."""
    try:
        return project_files.ensure_manifest()[0]
    except (project_files.ParseFailed, OSError):  # or a file of it is just being saved
        return project_files.target_dir() / "manifest.json"


def left_out(manifest: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What Cosmos' tasks look for, by its key, of nodes and tests that dbt has left out; without it, they would look for ever.

    As in Cosmos' own trigger, a node that dbt has not run is done, where dbt succeeded.

    Args:
        manifest: the content of dbt's ``manifest.json``.
        records: of the run, see `rundbt.results`.
    """
    reached = {record["unique_id"] for record in records if record["message"] != FAIL_FAST}
    good = bool(records) and not results.failures(records)
    # Of a microbatch, dbt logs the end of each batch as if it were the model's; of a node that a failed hook skips, no status at all.
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
