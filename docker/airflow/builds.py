"""One ``dbt build`` in Airflow: the task that runs it, the boxes that show it, and what the two say to each other.

The task writes dbt's log into a folder of its own, from which `box_executor.py` reads how each box fares.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchyard import project

TASK = "dbt_build"  # the task that runs dbt
QUEUE = "boxes"  # the queue of the tasks that stand for its nodes

KINDS = ("seed", "snapshot", "model")  # what has a box
GOOD = ("success", "no-op", "partial success")


@dataclass
class Node:
    """How a node fares.

    Attributes:
        started: when dbt began with it, in ISO format, UTC; empty before.
        finished: when it was done with it; empty before.
        status: dbt's own word.
        messages: what dbt said about it, each with its time.
        sql: the file with the compiled SQL, which only models have.
    """

    started: str = ""
    finished: str = ""
    status: str = ""
    messages: list[tuple[str, str]] = field(default_factory=list)
    sql: Path | None = None

    @property
    def good(self) -> bool:
        """Whether dbt is content with it."""
        return self.status in GOOD


class Progress:
    """How the nodes of a build fare, by the names of their boxes, as its log tells.

    Args:
        folder: the build's, see `folder_of`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, Node] = {}
        self._position = 0

    def read(self) -> None:
        """Take in what dbt has logged since the last time."""
        try:
            with open(self.folder / "logs" / "dbt.log", "rb") as log:
                log.seek(self._position)
                for line in log:
                    if not line.endswith(b"\n"):
                        break  # dbt is at it
                    self._position += len(line)
                    self._take(json.loads(line))
        except FileNotFoundError:
            pass

    def _take(self, event: Mapping[str, Any]) -> None:
        info = event["info"]
        told = event["data"].get("node_info") or {}
        if told.get("resource_type") not in KINDS:
            return
        _, package, name = told["unique_id"].split(".", 2)
        node = self.nodes.setdefault(name.replace(".", "_"), Node())  # a version of a model has a dot in it
        node.messages.append((info["ts"], info["msg"]))
        node.started = _utc(told["node_started_at"] or info["ts"])
        node.status = told["node_status"]
        if node.status != "started":
            node.finished = _utc(told["node_finished_at"] or info["ts"])
        if told["resource_type"] == "model":
            node.sql = self.folder / "target" / "compiled" / package / "models" / told["node_path"]


def _utc(time: str) -> str:
    return time if time.endswith("Z") else time + "Z"


def folder_of(dag_id: str, task_instance_id: str) -> Path:
    """Where a build works. Every try of its task has an id, and so a folder, of its own."""
    return project.target_dir() / "builds" / dag_id / task_instance_id


def begin(dag_id: str, task_instance_id: str) -> Path:
    """Make the folder of a build. Those of the DAG's earlier builds go: one run of it is active at a time."""
    folder = folder_of(dag_id, task_instance_id)
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
