"""Hand dbt's own results of a task to `run_job.py`, through XCom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rundbt import results

KEY = "dbt_results"


def push_results(project_dir: str, context: Any) -> None:
    """Cosmos' ``callback``: called when dbt has ended, well or not.

    Args:
        project_dir: the folder that dbt worked in.
        context: Airflow's, of the task.
    """
    nodes = results.read(Path(project_dir, "target"))
    log = Path(project_dir, "logs", "dbt.log")
    error = None
    if not nodes and log.exists():  # dbt did not come as far as the first node, and its log says why
        said = "\n".join(json.loads(line)["info"]["msg"] for line in log.read_text(encoding="utf-8").splitlines())
        _, found, text = said.rpartition("Encountered an error:")
        error = text.strip() if found else None
    context["ti"].xcom_push(KEY, {"nodes": nodes, "error": error})
