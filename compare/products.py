"""What each product's public API shows of a dbt project, and where its page shows it: one class per orchestrator, found by name."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote

from bench.rig import Rig
from rundbt import api
from switchyard import pipeline
from switchyard.errors import StackError


class Key(NamedTuple):
    """A dbt node as a person knows it: its kind (dbt's resource type) and its name."""

    kind: str
    name: str


@dataclass(frozen=True)
class Thing:
    """Something that a product's API gives as a thing of its own, under the name of a dbt node.

    Attributes:
        key: the node.
        said: all that the API says of it.
        owners: what it says of who owns it.
        before: the nodes that it says come directly before.
    """

    key: Key
    said: Any
    owners: Any = None
    before: frozenset[Key] = frozenset()


class Picture(NamedTuple):
    """A page to take a picture of.

    Attributes:
        what: ``graph``, ``node`` or ``log``.
        url: its address.
        steps: what is done there first, in order: ``see`` or ``click``, and one of Playwright's selectors, or ``press`` and a key.
    """

    what: str
    url: str
    steps: tuple[tuple[str, str], ...]


class Begun(NamedTuple):
    """A run that was begun by a product's own means.

    Attributes:
        way: what a person does there for it.
        green: whether it has succeeded; asked once it has ended.
    """

    way: str
    green: Callable[[], bool]


class Product(ABC):
    """One orchestrator's public API and pages.

    Args:
        rig: on which it is up.
        name: the orchestrator's.
    """

    # Of the sign-in page: a selector and what is typed there; none where the browser signs in by HTTP basic authentication.
    fields: tuple[tuple[str, str], ...] = ()

    def __init__(self, rig: Rig, name: str) -> None:
        self.orchestrator = rig.orchestrators[name]
        self.url = self.orchestrator.url(rig.settings.values).rstrip("/")
        self.password = rig.settings[self.orchestrator.login_key or ""]
        self.job = pipeline.known_job(rig.settings, None)

    def sign_in(self, password: str) -> dict[str, str]:
        """The headers that a password gives: HTTP's own, where a product has no sign-in of its API's.

        Raises:
            rundbt.api.ApiError: it is refused.
        """
        return api.basic_auth(f"admin:{password}")

    @cached_property
    def signed_in(self) -> dict[str, str]:
        """Those that the right password gives."""
        return self.sign_in(self.password)

    @abstractmethod
    def things(self) -> list[Thing]:
        """What it shows of the newest run, and of the project."""

    def alerts(self) -> bool:
        """Whether a run that fails from now on sends a message."""
        return True

    @abstractmethod
    def reload(self) -> bool:
        """Have it read the project again, as a button of its page does; False where it has none, and a run is needed."""

    @abstractmethod
    def boxes(self) -> set[str]:
        """The names of the models of its graph, as it is now."""

    def build(self, model: str) -> Begun | None:
        """Begin to build one model with its tests, as its page does; None where it has nothing for that.

        Args:
            model: the name.

        Raises:
            StackError: it has no such model, or does not begin.
        """
        return None

    @abstractmethod
    def pictures(self, run: str, name: str) -> list[Picture]:
        """The pages of a run that failed.

        Args:
            run: the address of the run's page.
            name: of the model that failed.
        """


PRODUCER = "dbt.dbt_producer_watcher"  # Cosmos' task that runs dbt


class Airflow(Product):
    """Its REST API: the tasks of the DAG and of its newest run."""

    fields = (("input[name=username]", "admin"), ("input[name=password]", "{password}"))

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Ask it, signed in."""
        return api.request(method, f"{self.url}/api/v2/{path}", body, self.signed_in)

    def sign_in(self, password: str) -> dict[str, str]:
        answer = api.request("POST", f"{self.url}/auth/token", {"username": "admin", "password": password})
        return {"Authorization": f"Bearer {answer['access_token']}"}

    def things(self) -> list[Thing]:
        """Each task that is one dbt node's own; those of its tests are one task together, and lead on to the next nodes."""
        return airflow_things(self.tasks(), self.instances())

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
        """The DAG's."""
        found: list[Any] = self.request("GET", f"dags/{self.job}/tasks")["tasks"]
        return found

    def reload(self) -> bool:
        """The DAG's button Reparse."""
        self.request("PUT", f"parseDagFile/{self.request('GET', f'dags/{self.job}')['file_token']}")
        return True

    def boxes(self) -> set[str]:
        return {key.name for task in self.tasks() if (key := airflow_key(task["task_id"]))}

    def build(self, model: str) -> Begun:
        tasks = airflow_own((task["task_id"] for task in self.tasks()), model)
        runs = self.request("GET", f"dags/{self.job}/dagRuns?state=success&order_by=-run_after&limit=1")["dag_runs"]
        if not tasks or not runs:
            raise StackError(f"Airflow has no task of the model {model} in a green run.")
        run = runs[0]["dag_run_id"]
        cleared = {"dag_run_id": run, "task_ids": tasks, "only_failed": False, "run_on_latest_version": True}
        self.request("POST", f"dags/{self.job}/clearTaskInstances", {"dry_run": False, **cleared})
        path = f"dags/{self.job}/dagRuns/{quote(run, safe='')}"
        return Begun("its tasks are cleared in the last green run", lambda: self.request("GET", path)["state"] == "success")

    def pictures(self, run: str, name: str) -> list[Picture]:
        task = next((task["task_id"] for task in self.tasks() if airflow_key(task["task_id"]) == Key("model", name)), None)
        if task is None:
            raise StackError(f"Airflow has no task of the model {name}.")
        page, node = f"{run}/tasks/{quote(task, safe='')}", ("see", f".react-flow >> text={name}")
        # The task of a model never runs where one before it failed; the task that runs dbt has the words of all nodes.
        failed = self.instances()[task]["state"] == "failed"
        log = page if failed else f"{run}/tasks/{quote(PRODUCER, safe='')}"
        opened = ("click", "[aria-label^='Show Graph']"), ("click", "[data-testid=expand-all-button]"), node
        alone = ("click", "[aria-label='Collapse Details Panel']"), ("click", ".react-flow__controls-fitview"), node
        return [
            Picture("graph", run, (*opened, *alone)),
            Picture("node", f"{page}/details", (("see", f"h2:has-text('{name}')"), ("see", "text=Failed"))),
            Picture("log", log, (("see", "text=Post Execute"), ("press", "f"), ("see", "text=Post Execute"))),
        ]


def airflow_key(task: str) -> Key | None:
    """The node of one of Cosmos' tasks: ``dbt.<name>_run`` or ``dbt.<name>_seed``; ``dbt.<name>.run`` beside the task of its tests."""
    match = re.fullmatch(r"dbt\.(.+)[._](run|seed|snapshot|source)", task)
    return Key({"run": "model"}.get(match[2], match[2]), match[1]) if match else None


def airflow_own(tasks: Iterable[str], model: str) -> list[str]:
    """The ids of a model's tasks: the one that builds it, and the one of its tests."""
    own = [id for id in tasks if airflow_key(id) == Key("model", model)]
    groups = {id.removesuffix(".run") + ".test" for id in own if id.endswith(".run")}
    return [*own, *sorted(groups)]


def airflow_things(tasks: Iterable[Any], done: Mapping[str, Any]) -> list[Thing]:
    """The nodes' tasks.

    Args:
        tasks: of the DAG.
        done: those of a run, by id.
    """
    known = {task["task_id"]: task for task in tasks}
    groups = {id.rpartition(".")[0]: key for id in known if (key := airflow_key(id))}
    before: dict[Key, set[Key]] = {}
    for id, task in known.items():
        key = airflow_key(id) or (groups.get(id.removesuffix(".test")) if id.endswith(".test") else None)
        for after in map(airflow_key, task["downstream_task_ids"]):
            if key and after and key != after:
                before.setdefault(after, set()).add(key)
    return [
        Thing(key, [task, done.get(id)], task["owner"], frozenset(before.get(key, ())))
        for id, task in known.items()
        if (key := airflow_key(id))
    ]


class Dagster(Product):
    """Its GraphQL API, of which its page is made: the assets and their checks."""

    ASSETS = """{assetNodes {
      assetKey {path} description groupName kinds tags {key value} dependencyKeys {path}
      owners {... on UserAssetOwner {email} ... on TeamAssetOwner {team}}
      assetChecksOrError {... on AssetChecks {checks {name description}}}
      metadataEntries {...entry} assetMaterializations(limit: 1) {metadataEntries {...entry}}
    }}
    fragment entry on MetadataEntry {
      label ... on TextMetadataEntry {text} ... on MarkdownMetadataEntry {mdStr} ... on IntMetadataEntry {intValue}
      ... on JsonMetadataEntry {jsonString}
      ... on TableSchemaMetadataEntry {schema {columns {name description}}}
    }"""
    NAMES = "{assetNodes {assetKey {path} metadataEntries {label ... on TextMetadataEntry {text}}}}"
    SENSOR = """{sensorOrError(sensorSelector: {
        repositoryLocationName: "dbt", repositoryName: "__repository__", sensorName: "alert"
      }) {... on Sensor {sensorState {ticks(limit: 5) {status}}}}}"""
    LAUNCH = """mutation ($params: ExecutionParams!) {
      launchRun(executionParams: $params) {__typename ... on LaunchRunSuccess {run {runId}} ... on Error {message}}
    }"""
    STATUS = "query ($id: ID!) {runOrError(runId: $id) {... on Run {status}}}"
    RELOAD = 'mutation {reloadRepositoryLocation(repositoryLocationName: "dbt") {__typename}}'

    def ask(self, query: str, **variables: Any) -> Any:
        """What it answers.

        Raises:
            rundbt.api.ApiError: there was no good answer.
        """
        answer = api.request("POST", f"{self.url}/graphql", {"query": query, "variables": variables}, self.signed_in, timeout=120)
        if answer.get("errors"):
            raise api.ApiError(answer["errors"][0]["message"])
        return answer["data"]

    def assets(self) -> list[Any]:
        """All of them, with what is needed to know their nodes."""
        found: list[Any] = self.ask(self.NAMES)["assetNodes"]
        return found

    def things(self) -> list[Thing]:
        return dagster_things(self.ask(self.ASSETS)["assetNodes"])

    def alerts(self) -> bool:
        """Its sensor sees the failures after its first tick."""
        found = self.ask(self.SENSOR)["sensorOrError"]
        return any(tick["status"] in ("SKIPPED", "SUCCESS") for tick in found.get("sensorState", {}).get("ticks", ()))

    def reload(self) -> bool:
        """The button Reload of a code location."""
        self.ask(self.RELOAD)
        return True

    def boxes(self) -> set[str]:
        return {dagster_key(asset).name for asset in self.assets()}

    def path(self, model: str) -> list[str]:
        """The key of a model's asset.

        Raises:
            StackError: it has no such asset.
        """
        for asset in self.assets():
            if dagster_key(asset) == Key("model", model):
                found: list[str] = asset["assetKey"]["path"]
                return found
        raise StackError(f"Dagster has no asset of the model {model}.")

    def build(self, model: str) -> Begun:
        job = {"repositoryLocationName": "dbt", "repositoryName": "__repository__", "jobName": self.job}
        params = {"selector": {**job, "assetSelection": [{"path": self.path(model)}]}, "runConfigData": {}}
        launched = self.ask(self.LAUNCH, params=params)["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise StackError(f"Dagster does not launch the run: {launched.get('message') or launched['__typename']}")
        id = launched["run"]["runId"]
        return Begun("its asset is selected", lambda: self.ask(self.STATUS, id=id)["runOrError"].get("status") == "SUCCESS")

    def pictures(self, run: str, name: str) -> list[Picture]:
        path = "/".join(self.path(name))
        return [
            Picture("graph", f"{self.url}/assets/{path}?view=lineage", (("see", f"svg foreignObject:has-text('{name}')"),)),
            Picture("node", f"{self.url}/assets/{path}?view=overview", (("see", "text=Description"),)),
            Picture("log", run, (("see", "text=STEP_FAILURE"),)),
        ]


def dagster_key(asset: Any) -> Key:
    """The node of an asset: by dagster-dbt's own metadata, or, where it has none, the source of its last name."""
    for entry in asset["metadataEntries"]:
        if entry["label"] == "dagster_dbt/unique_id":
            kind, _, name = entry["text"].split(".", 2)
            return Key(kind, name)
    return Key("source", asset["assetKey"]["path"][-1])


def dagster_things(assets: Iterable[Any]) -> list[Thing]:
    """The assets, and their checks, which are the tests."""
    keys = {tuple(asset["assetKey"]["path"]): dagster_key(asset) for asset in assets}
    found = []
    for asset in assets:
        before = frozenset(keys[path] for one in asset["dependencyKeys"] if (path := tuple(one["path"])) in keys)
        found.append(Thing(dagster_key(asset), asset, asset["owners"], before))
        found += [Thing(Key("test", check["name"]), check) for check in asset["assetChecksOrError"].get("checks", ())]
    return found


class Prefect(Product):
    """Its REST API: the task runs of the newest flow run, and its events on assets, which its event feed shows."""

    fields = (("input[type=password]", "admin:{password}"),)

    def request(self, path: str, body: Any) -> Any:
        """Ask it."""
        return api.request("POST", f"{self.url}/api/{path}", body, self.signed_in)

    def newest(self) -> str:
        """The id of the newest flow run that has begun."""
        (run,) = self.request("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
        return str(run["id"])

    def task_runs(self) -> list[Any]:
        """Those of that flow run."""
        found: list[Any] = []
        asked = {"flow_runs": {"id": {"any_": [self.newest()]}}, "sort": "ID_DESC", "limit": 200}
        while page := self.request("task_runs/filter", {**asked, "offset": len(found)}):
            found += page
        return found

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
        return prefect_things(runs, events)

    def reload(self) -> bool:
        """It has nothing to read again."""
        return False

    def boxes(self) -> set[str]:
        return {key.name for run in self.task_runs() if (key := prefect_key(run["name"]))}

    def pictures(self, run: str, name: str) -> list[Picture]:
        newest_first = ("click", "[aria-label='log sort order']"), ("click", "[role=option]:has-text('Newest to oldest')")
        # Where a unit test of the model failed before it, the model has a task run that was skipped.
        failed = next((one for one in self.task_runs() if one["state_type"] == "FAILED"), None)
        if failed is None:
            raise StackError("Prefect has no task run that failed.")
        return [
            Picture("graph", run, (("see", "text=Failed"), ("see", "canvas"))),  # a drawing without texts that could be waited for
            Picture("node", f"{self.url}/v2/runs/task-run/{failed['id']}", (("see", f"text={failed['name']}"), ("see", "text=Failed"))),
            Picture("log", f"{run}?tab=Logs", (*newest_first, ("see", f"text={name}"))),
        ]


def prefect_key(name: str) -> Key | None:
    """The node of a task run, which prefect-dbt calls by its kind and its name."""
    kind, _, node = name.partition(" ")
    return Key(kind, node) if node else None


def prefect_things(runs: Iterable[Any], events: Iterable[Any]) -> list[Thing]:
    """The task runs, and the assets of the events, each under its node's name."""
    said: dict[Key, list[Any]] = {}
    for run in runs:
        if key := prefect_key(run["name"]):
            said.setdefault(key, []).append(run)
    assets: dict[str, Key] = {}
    built = [event for event in events if event["payload"].get("unique_id")]
    for event in built:
        kind, _, name = event["payload"]["unique_id"].split(".", 2)
        assets[event["resource"]["prefect.resource.id"]] = Key(kind, name)
        said.setdefault(Key(kind, name), []).append(event)
    for event in (event for event in events if event not in built):  # one that refers to an asset, a source's where no node builds it
        resource = event["resource"]["prefect.resource.id"]
        key = assets.setdefault(resource, Key("source", resource.rpartition("/")[2]))
        said.setdefault(key, []).append(event)
    before: dict[Key, set[Key]] = {}
    for event in built:
        for one in event["related"]:
            if one["prefect.resource.role"] == "asset" and one["prefect.resource.id"] in assets:
                key = assets[event["resource"]["prefect.resource.id"]]
                before.setdefault(key, set()).add(assets[one["prefect.resource.id"]])
    owners = {
        key: [value for one in each for name, value in (one.get("resource") or {}).items() if "owner" in name] for key, each in said.items()
    }
    return [Thing(key, each, owners[key], frozenset(before.get(key, ()))) for key, each in said.items()]


PRODUCTS: dict[str, type[Product]] = {"airflow": Airflow, "dagster": Dagster, "prefect": Prefect}


def product(rig: Rig, name: str) -> Product:
    """The product that is up on a rig.

    Raises:
        StackError: it is not in this file.
    """
    if name not in PRODUCTS:
        raise StackError("The comparison does not know this product's API.")
    return PRODUCTS[name](rig, name)


def texts(said: Any) -> Iterator[str]:
    """Every text in an answer."""
    if isinstance(said, str):
        yield said
        if said.startswith(("{", "[")):
            try:
                yield from texts(json.loads(said))
            except ValueError:
                return
    elif isinstance(said, Mapping):
        for key, value in said.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(said, list | tuple):
        for one in said:
            yield from texts(one)
