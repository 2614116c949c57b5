"""Airflow's cluster policy: it imports this file by its name."""

from __future__ import annotations

from typing import Any

from cosmos.constants import PRODUCER_WATCHER_TASK_ID


def task_instance_mutation_hook(task_instance: Any) -> None:
    """Give a task that is run again the pool that fits.

    Cosmos' tasks that watch a ``dbt build`` run dbt themselves at a later try, one at a time like every other. The task that ran the
    build does nothing then, and must not wait for them.
    """
    if task_instance.task_id.startswith("dbt.") and (task_instance.try_number or 0) >= 1 and task_instance.state is None:
        task_instance.pool = "default_pool" if task_instance.task_id.endswith(f".{PRODUCER_WATCHER_TASK_ID}") else "dbt"
