"""Apache Airflow, with Cosmos."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from compare.products.product import Begun, Key, PageRequest, Picture, Product, Thing, paths
from rundbt import api
from switchyard.errors import StackError

PRODUCER = "dbt.dbt_producer_watcher"  # Cosmos' task that runs dbt


class AirflowProduct(Product):
    """Its REST API: the tasks of the DAG and of its newest run."""

    read = PageRequest("GET", "/api/v2/dags/~/dagRuns?limit=1")
    write = PageRequest("PATCH", "/api/v2/dags/daily?update_mask=is_paused", {"is_paused": False})
    roles = "its simple auth manager has viewer, user, op and admin; here is one user, an admin"
    alert = "by the DAG's on_failure_callback"

    fields = (("input[name=username]", "admin"), ("input[name=password]", "{password}"))

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, signed in."""
        return api.request(method, f"{self.url}/api/v2/{path}", body, self.signed_in)

    def sign_in(self, password: str) -> dict[str, str]:
        answer = api.request("POST", f"{self.url}/auth/token", {"username": "admin", "password": password})
        return {"Authorization": f"Bearer {answer['access_token']}"}

    def described(self) -> list[str]:
        return paths(self, "/openapi.json", "/auth/openapi.json", "/auth/fab/v1/openapi.json")

    def things(self) -> list[Thing]:
        """Each task of a single dbt node. A node's tests are together in one task, which leads to the next nodes."""
        return read_things(self.tasks(), self.instances())

    def instances(self) -> dict[str, Any]:
        """The task instances of the newest run, by the task's id."""
        (run,) = self.request("GET", f"dags/{self.job}/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
        path = f"dags/{self.job}/dagRuns/{quote(run['dag_run_id'], safe='')}/taskInstances"
        instances: list[Any] = []
        while True:
            page = self.request("GET", f"{path}?limit=100&offset={len(instances)}&order_by=id")
            instances += page["task_instances"]
            if not page["task_instances"] or len(instances) >= page["total_entries"]:
                break
        return {one["task_id"]: one for one in instances}

    def tasks(self) -> list[Any]:
        """The DAG's tasks."""
        found: list[Any] = self.request("GET", f"dags/{self.job}/tasks")["tasks"]
        return found

    def reload(self) -> bool:
        """The DAG's button Reparse."""
        self.request("PUT", f"parseDagFile/{self.request('GET', f'dags/{self.job}')['file_token']}")
        return True

    def boxes(self) -> set[str]:
        return {key.name for task in self.tasks() if (key := node_of(task["task_id"]))}

    def build(self, model: str) -> Begun:
        tasks = own_tasks((task["task_id"] for task in self.tasks()), model)
        runs = self.request("GET", f"dags/{self.job}/dagRuns?state=success&order_by=-run_after&limit=1")["dag_runs"]
        if not tasks or not runs:
            raise StackError(f"Airflow has no task of the model {model} in a green run.")
        run = runs[0]["dag_run_id"]
        cleared = {"dag_run_id": run, "task_ids": tasks, "only_failed": False, "run_on_latest_version": True}
        self.request("POST", f"dags/{self.job}/clearTaskInstances", {"dry_run": False, **cleared})
        path = f"dags/{self.job}/dagRuns/{quote(run, safe='')}"
        return Begun("its tasks are cleared in the last green run", lambda: self.request("GET", path)["state"] == "success")

    def pictures(self, run: str, name: str) -> list[Picture]:
        task = next((task["task_id"] for task in self.tasks() if node_of(task["task_id"]) == Key("model", name)), None)
        if task is None:
            raise StackError(f"Airflow has no task of the model {name}.")
        failed, node = failed_task(self.instances(), task), ("see", f".react-flow >> text={name}")
        page = f"{run}/tasks/{quote(failed, safe='')}"
        opened = ("click", "[aria-label^='Show Graph']"), ("click", "[data-testid=expand-all-button]"), node
        alone = ("click", "[aria-label='Collapse Details Panel']"), ("click", ".react-flow__controls-fitview"), node
        return [
            Picture("graph", run, (*opened, *alone)),
            Picture("node", f"{page}/details", (("see", f"h2:has-text('{failed}')"), ("see", "text='Failed'"))),
            Picture("log", page, (("see", "text=Post Execute"), ("press", "f"), ("see", "text=Post Execute"))),
        ]


def node_of(task: str) -> Key | None:
    """The node of one of Cosmos' tasks: ``dbt.<name>_run`` or ``dbt.<name>_seed``; ``dbt.<name>.run`` if it has a task for tests."""
    match = re.fullmatch(r"dbt\.(.+)[._](run|seed|snapshot|source)", task)
    return Key({"run": "model"}.get(match[2], match[2]), match[1]) if match else None


def failed_task(done: Mapping[str, Any], task: str) -> str:
    """The task that failed: a model's own, or, if that did not start because a unit test before it failed, the one that runs dbt.

    Args:
        done: the task instances of a run, by task id.
        task: the model's task.

    Raises:
        StackError: neither failed.
    """
    failed = [id for id in (task, PRODUCER) if done.get(id, {}).get("state") == "failed"]
    if not failed:
        raise StackError("Airflow has no task that failed.")
    return failed[0]


def own_tasks(tasks: Iterable[str], model: str) -> list[str]:
    """The ids of a model's tasks: the one that builds it, and the one of its tests."""
    own = [id for id in tasks if node_of(id) == Key("model", model)]
    groups = {id.removesuffix(".run") + ".test" for id in own if id.endswith(".run")}
    return [*own, *sorted(groups)]


def read_things(tasks: Iterable[Any], done: Mapping[str, Any]) -> list[Thing]:
    """The nodes' tasks.

    Args:
        tasks: the DAG's tasks.
        done: the task instances of a run, by task id.
    """
    known = {task["task_id"]: task for task in tasks}
    groups = {id.rpartition(".")[0]: key for id in known if (key := node_of(id))}
    before: dict[Key, set[Key]] = {}
    for id, task in known.items():
        key = node_of(id) or (groups.get(id.removesuffix(".test")) if id.endswith(".test") else None)
        for after in map(node_of, task["downstream_task_ids"]):
            if key and after and key != after:
                before.setdefault(after, set()).add(key)
    return [
        Thing(key, [task, done.get(id)], task["owner"], frozenset(before.get(key, ())))
        for id, task in known.items()
        if (key := node_of(id))
    ]


PRODUCT = AirflowProduct
