"""Prefect, with prefect-dbt."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from compare.products.product import Begun, Key, PageRequest, Picture, Product, Thing, paths
from rundbt import api
from switchyard.errors import StackError

RECORDED_TIMEOUT_S = 60  # its server records task runs from events, with a delay


class PrefectProduct(Product):
    """Its REST API: the task runs of the newest flow run, and its asset events, which its event feed shows."""

    read = PageRequest("POST", "/api/flow_runs/filter", {"limit": 1})
    write = PageRequest("PATCH", "/api/work_pools/dbt", {})
    alert = "by the flow's hooks on_failure and on_crashed"

    fields = (("input[type=password]", "admin:{password}"),)

    def request(self, path: str, body: Any) -> Any:
        """Send a request, signed in."""
        return api.request("POST", f"{self.url}/api/{path}", body, self.signed_in)

    def newest(self) -> str:
        """The id of the newest flow run that has started."""
        (run,) = self.request("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
        return str(run["id"])

    def task_runs(self) -> list[Any]:
        """The task runs of that flow run."""
        found: list[Any] = []
        asked = {"flow_runs": {"id": {"any_": [self.newest()]}}, "sort": "ID_DESC", "limit": 200}
        while page := self.request("task_runs/filter", {**asked, "offset": len(found)}):
            found += page
        return found

    def described(self) -> list[str]:
        return paths(self, "/openapi.json")

    def things(self) -> list[Thing]:
        runs = self.task_runs()
        related = {"id": [f"prefect.flow-run.{self.newest()}"]}
        body = {"filter": {"event": {"prefix": ["prefect.asset."]}, "related": related}, "limit": 50}
        page = self.request("events/filter", body)
        events = list(page["events"])
        while page["next_page"]:
            query = page["next_page"].partition("?")[2]
            page = api.request("GET", f"{self.url}/api/events/filter/next?{query}", None, self.signed_in)
            events += page["events"]
        return read_things(runs, events)

    def reload(self) -> bool:
        """It has nothing to reload."""
        return False

    def boxes(self) -> set[str]:
        return {key.name for run in self.task_runs() if (key := node_of(run["name"]))}

    def build(self, model: str) -> Begun:
        """Run the deployment with other parameters, like "Custom run" on its page."""
        deployment = api.request("GET", f"{self.url}/api/deployments/name/dbt/{self.job}", None, self.signed_in)
        begun = self.request(f"deployments/{deployment['id']}/create_flow_run", {"parameters": {"job": self.job, "select": model}})
        place = f"{self.url}/api/flow_runs/{begun['id']}"
        return Begun(
            "the flow's parameter selects it", lambda: api.request("GET", place, None, self.signed_in)["state_type"] == "COMPLETED"
        )

    def pictures(self, run: str, name: str) -> list[Picture]:
        newest_first = ("click", "[aria-label='log sort order']"), ("click", "[role=option]:has-text('Newest to oldest')")
        deadline = time.monotonic() + RECORDED_TIMEOUT_S
        # If a unit test of the model failed before it, the model's task run was skipped.
        while not (failed := next((one for one in self.task_runs() if one["state_type"] == "FAILED"), None)):
            if time.monotonic() > deadline:
                raise StackError("Prefect has no task run that failed.")
            time.sleep(1)
        return [
            Picture("graph", run, (("see", "text=Failed"), ("see", "canvas"))),  # it is a canvas, without text to wait for
            Picture("node", f"{self.url}/v2/runs/task-run/{failed['id']}", (("see", f"text={failed['name']}"), ("see", "text=Failed"))),
            Picture("log", f"{run}?tab=Logs", (*newest_first, ("see", f"text={name}"))),
        ]


def node_of(name: str) -> Key | None:
    """The node of a task run; its name is the node's kind and name."""
    kind, _, node = name.partition(" ")
    return Key(kind, node) if node else None


def read_things(runs: Iterable[Any], events: Iterable[Any]) -> list[Thing]:
    """The task runs, and the assets of the events, each under its node's name."""
    answers: dict[Key, list[Any]] = {}
    for run in runs:
        if key := node_of(run["name"]):
            answers.setdefault(key, []).append(run)
    assets: dict[str, Key] = {}
    built = [event for event in events if event["payload"].get("unique_id")]
    for event in built:
        kind, _, name = event["payload"]["unique_id"].split(".", 2)
        assets[event["resource"]["prefect.resource.id"]] = Key(kind, name)
        answers.setdefault(Key(kind, name), []).append(event)
    for event in (event for event in events if event not in built):  # an event that refers to an asset; it is a source if no node builds it
        resource = event["resource"]["prefect.resource.id"]
        key = assets.setdefault(resource, Key("source", resource.rpartition("/")[2]))
        answers.setdefault(key, []).append(event)
    before: dict[Key, set[Key]] = {}
    for event in built:
        for one in event["related"]:
            if one["prefect.resource.role"] == "asset" and one["prefect.resource.id"] in assets:
                key = assets[event["resource"]["prefect.resource.id"]]
                before.setdefault(key, set()).add(assets[one["prefect.resource.id"]])
    owners = {
        key: [value for one in each for name, value in (one.get("resource") or {}).items() if "owner" in name]
        for key, each in answers.items()
    }
    return [Thing(key, each, owners[key], frozenset(before.get(key, ()))) for key, each in answers.items()]


PRODUCT = PrefectProduct
