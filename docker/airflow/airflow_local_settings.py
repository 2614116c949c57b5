"""Airflow's cluster policy: Airflow imports this file by its name."""

from __future__ import annotations

from typing import Any

from cosmos.constants import PRODUCER_WATCHER_TASK_ID


def task_instance_mutation_hook(task_instance: Any) -> None:
    """Put a task that runs again into the right pool.

    On a retry, Cosmos' tasks that watch a ``dbt build`` run dbt themselves, one at a time like every other dbt. The task that ran the
    build does nothing on a retry, and must not wait for them.
    """
    if task_instance.task_id.startswith("dbt.") and (task_instance.try_number or 0) >= 1 and task_instance.state is None:
        task_instance.pool = "default_pool" if task_instance.task_id.endswith(f".{PRODUCER_WATCHER_TASK_ID}") else "dbt"
