"""Builds on Airflow's page; the code is the same in containers."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rundbt import api

from .. import runs
from ..interruptions import ended, typed
from ..stacks import LONG, slow_model, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Airflow does not run there")

BROKEN_MODEL = "select no_such_column from {{ ref('first') }}\n"


class AirflowPage:
    """Airflow's REST API, signed in."""

    def __init__(self, stack) -> None:
        self.root = f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}"
        token = self.ask("POST", "/auth/token", {"username": "admin", "password": stack.secrets()["AIRFLOW_ADMIN_PASSWORD"]})
        self.headers = {"Authorization": f"Bearer {token['access_token']}"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return api.request(method, self.root + path, body, getattr(self, "headers", None))

    def tasks(self) -> str:
        """The path of the tasks of the newest run of daily."""
        run = self.ask("GET", "/api/v2/dags/daily/dagRuns?order_by=-run_after&limit=1")["dag_runs"][0]["dag_run_id"]
        return f"/api/v2/dags/daily/dagRuns/{run}/taskInstances"

    def states(self) -> dict[str, str]:
        """The state of every task of that run."""
        return {task["task_id"]: task["state"] for task in self.ask("GET", f"{self.tasks()}?limit=500")["task_instances"]}

    def log(self, task: str) -> str:
        """What the page shows as the log of one of them."""
        return json.dumps(self.ask("GET", f"{self.tasks()}/{task}/logs/1"))


def test_only_what_failed_is_run_again_with_its_tests(stack, reference) -> None:
    stack.on("airflow")
    with stack.edited("models/last.sql", BROKEN_MODEL):
        stack.invoke("run", code=1)
    page = AirflowPage(stack)
    states = page.states()
    assert states["dbt.last.run"] == states["dbt.dbt_producer_watcher"] == "failed"
    assert states["dbt.first.run"] == states["dbt.first.test"] == "success"
    out = stack.invoke("run", "--failed").stdout
    assert "model     last" in out
    assert "unique_last_id" in out
    assert "first" not in [line.split()[2] for line in out.splitlines() if line.split()[1:2] == ["model"]]
    assert set(page.states().values()) <= {"success", "skipped"}
    assert stack.hashes() == reference


def test_what_failed_runs_again_after_the_project_got_other_tasks(stack, reference) -> None:
    stack.on("airflow")
    with stack.edited("models/last.sql", BROKEN_MODEL):
        stack.invoke("run", code=1)
    with stack.edited("models/between.sql", "select * from {{ ref('last') }}\n"):
        out = stack.invoke("run", "--failed").stdout
        assert [line.split()[2] for line in out.splitlines() if line.split()[1:2] == ["model"]] == ["last"]
        assert "unique_last_id" in out
    assert stack.hashes() == reference


def test_schedules_are_on_the_page_and_paused(stack) -> None:
    stack.on("airflow")
    dags = {dag["dag_id"]: dag["is_paused"] for dag in AirflowPage(stack).ask("GET", "/api/v2/dags")["dags"]}
    assert {name for name, paused in dags.items() if paused} == {"daily-schedule", "smoke-schedule", "freshness-schedule"}
    assert {name for name, paused in dags.items() if not paused} == {
        "daily",
        "smoke",
        "freshness",
        "full_refresh",
        "daily-custom",
        "full_refresh-custom",
    }


def test_a_run_is_shown_and_canceled(stack, reference) -> None:
    runs.canceled_run(stack, "airflow", reference)


def test_the_lean_form_is_one_task_with_the_same_results(stack, reference) -> None:
    stack.on("airflow")
    stack.invoke("up", "--orch", "airflow", "--integration", "lean")
    try:
        lean = runs.outcome(runs.record(stack)["nodes"])
        assert AirflowPage(stack).states() == {"dbt": "success"}
        with stack.edited("models/last.sql", BROKEN_MODEL):
            stack.invoke("run", code=1)
        again = runs.record(stack, "--failed")
        assert again["state"] == "success"
        assert [node["name"] for node in again["nodes"] if node["kind"] == "model"] == ["last"]
        assert stack.hashes() == reference
        if LONG:
            runs.failed_again(stack, "airflow", reference)
            runs.canceled_run(stack, "airflow", reference)
    finally:
        stack.invoke("up", "--orch", "airflow")
    assert runs.outcome(runs.record(stack)["nodes"]) == lean
    assert "dbt.first.run" in AirflowPage(stack).states()


@pytest.mark.long  # Airflow reads its DAGs once a minute
def test_a_model_added_during_a_run_does_not_delay_it(stack, reference) -> None:
    stack.on("airflow")
    with stack.edited("models/slow.sql", slow_model(100, ["last"])):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(runs.SLOW.format(100)) == "1", 120)
        with stack.edited("models/added.sql", "select 1 as one\n"):
            wait_until(lambda: "dbt.added_run" in AirflowPage(stack).states() or "dbt.added.run" in AirflowPage(stack).states(), 95)
            assert ended(run)[0] == 0
        stack.invoke("sql", "drop table slow")
    stack.invoke("run")
    assert stack.hashes() == reference


def test_a_temporary_parse_error_does_not_fail_a_run_in_progress(stack, reference) -> None:
    stack.on("airflow")
    with stack.edited("models/slow.sql", slow_model(10, ["last"])):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(runs.SLOW.format(10)) == "1", 120)
        with stack.edited("models/half.sql", "select {{ this is no Jinja\n"):
            assert ended(run)[0] == 0
        stack.invoke("sql", "drop table slow")
    stack.invoke("run")
    assert stack.hashes() == reference
