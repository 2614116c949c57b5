"""What a product offers, besides a run of the whole project, to build one model again: by its public API, as its page does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from compare.trial import Node, Trial
from stack import pipeline
from stack.errors import StackError
from switchyard import api

ASSETS = "query {assetNodes {assetKey {path}}}"
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {__typename ... on Error {message}}
}"""


class Way(NamedTuple):
    """One of these: what a person does, and a function that begins it."""

    words: str
    begin: Callable[[Trial, Node], None]


def select_asset(trial: Trial, model: Node) -> None:
    """Launch Dagster's job with one asset of it selected, and so with this asset's checks.

    Raises:
        StackError: there is no such asset, or Dagster refuses.
    """
    settings = trial.stand.settings
    url = f"http://127.0.0.1:{settings['DAGSTER_PORT']}/graphql"
    sign_in = api.basic_auth(f"admin:{settings['DAGSTER_ADMIN_PASSWORD']}")

    def ask(query: str, **variables: Any) -> dict[str, Any]:
        found: dict[str, Any] = api.request("POST", url, {"query": query, "variables": variables}, sign_in)["data"]
        return found

    keys = [node["assetKey"]["path"] for node in ask(ASSETS)["assetNodes"] if node["assetKey"]["path"][-1] == model.name]
    if len(keys) != 1:
        raise StackError(f"Dagster has {len(keys)} assets of the model {model.name}.")
    job = {"repositoryLocationName": "dbt", "repositoryName": "__repository__", "jobName": pipeline.known_job(settings, None)}
    params = {"selector": {**job, "assetSelection": [{"path": keys[0]}]}, "runConfigData": {}}
    launched = ask(LAUNCH, params=params)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise StackError(f"Dagster does not launch the run: {launched.get('message') or launched['__typename']}")


def clear_tasks(trial: Trial, model: Node) -> None:
    """Clear a model's tasks in Airflow's last green run: the one that builds it, and the one of its tests.

    Raises:
        StackError: there is no such task.
    """
    settings = trial.stand.settings
    root = f"http://127.0.0.1:{settings['AIRFLOW_PORT']}"
    credentials = {"username": "admin", "password": settings["AIRFLOW_ADMIN_PASSWORD"]}
    token = {"Authorization": f"Bearer {api.request('POST', f'{root}/auth/token', credentials)['access_token']}"}
    ask = partial(api.request, headers=token)
    dag = f"{root}/api/v2/dags/{pipeline.known_job(settings, None)}"
    pattern = re.compile(rf"dbt\.{re.escape(model.name)}(\.run|\.test|_run)")
    tasks = [task["task_id"] for task in ask("GET", f"{dag}/tasks")["tasks"] if pattern.fullmatch(task["task_id"])]
    runs = ask("GET", f"{dag}/dagRuns?state=success&order_by={quote('-run_after')}&limit=1")["dag_runs"]
    if not tasks or not runs:
        raise StackError(f"Airflow has no task of the model {model.name} in a green run.")
    cleared = {"dag_run_id": runs[0]["dag_run_id"], "task_ids": tasks, "only_failed": False, "run_on_latest_version": True}
    ask("POST", f"{dag}/clearTaskInstances", {"dry_run": False, **cleared})


WAYS = {
    "airflow": Way("its tasks are cleared in the last green run", clear_tasks),
    "dagster": Way("its asset is selected", select_asset),
}
