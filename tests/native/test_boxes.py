"""What Airflow's page shows of a build; the code is the same in containers."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import pytest

from switchyard import api

from ..stacks import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Airflow does not run there")

BROKEN_MODEL = "select no_such_column from {{ ref('fct_orders') }}\n"


class Page:
    """Airflow's REST API, signed in."""

    def __init__(self, stack) -> None:
        self.root = f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}"
        token = self.ask("POST", "/auth/token", {"username": "admin", "password": stack.secrets()["AIRFLOW_ADMIN_PASSWORD"]})
        self.headers = {"Authorization": f"Bearer {token['access_token']}"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return api.request(method, self.root + path, body, getattr(self, "headers", None))

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Every task of a run, by name."""
        return {task["task_id"]: task for task in self.ask("GET", f"{run}/taskInstances")["task_instances"]}


def test_each_node_has_a_box_that_tells_how_dbt_fared_with_it(stack, reference) -> None:
    stack.on("airflow")
    with stack.edited("models/marts/rpt_sales_summary.sql", BROKEN_MODEL):
        out = stack.invoke("run", code=1).stdout
    page = Page(stack)
    run = max(page.ask("GET", "/api/v2/dags/daily/dagRuns")["dag_runs"], key=lambda run: run["start_date"])["dag_run_id"]
    path = f"/api/v2/dags/daily/dagRuns/{run}"
    tasks = page.tasks(path)

    build = tasks.pop("dbt_build")
    told = {line.split()[2]: line.split()[0] for line in out.splitlines() if line.split()[1:2] in (["seed"], ["model"], ["snapshot"])}
    assert told["rpt_sales_summary"] == "error"
    assert {name: task["state"] for name, task in tasks.items()} == {
        name: "failed" if status == "error" else "success" for name, status in told.items()
    }
    assert build["state"] == "failed"
    for name, task in tasks.items():  # a time that is dbt's lies within its build
        assert times(build)[0] < times(task)[0] <= times(task)[1] < times(build)[1], name
    log = page.ask("GET", f"{path}/taskInstances/rpt_sales_summary/logs/1?full_content=true")
    assert "ERROR creating sql" in str(log)

    # Cleared by a person, a box runs dbt for its own node, and nothing else runs again.
    body = {"dry_run": False, "dag_run_id": run, "task_ids": ["rpt_sales_summary"], "only_failed": False}
    page.ask("POST", "/api/v2/dags/daily/clearTaskInstances", body)
    wait_until(lambda: page.tasks(path)["rpt_sales_summary"]["state"] == "success", 120)
    assert {name: task["try_number"] for name, task in page.tasks(path).items() if task["try_number"] > 1} == {"rpt_sales_summary": 2}
    assert stack.hashes() == reference


def times(task: dict[str, Any]) -> tuple[datetime, datetime]:
    """When it began and ended."""
    start, end = (datetime.fromisoformat(task[key].replace("Z", "+00:00")) for key in ("start_date", "end_date"))
    return start, end
