"""Builds on Prefect's page; the code is the same in containers."""

from __future__ import annotations

from typing import Any

from rundbt import api

from .. import runs
from ..interruptions import ended, typed
from ..stacks import wait_until

BROKEN_MODEL = "select no_such_column from {{ ref('last') }}\n"
MENDED_MODEL = "select 1 as no_such_column from {{ ref('last') }} limit 1\n"
SKIPPED_MODEL = "select * from {{ ref('broken') }}\n"


class PrefectPage:
    """Prefect's REST API, signed in."""

    def __init__(self, stack) -> None:
        self.root = f"http://127.0.0.1:{stack.ports['PREFECT_PORT']}/api"
        self.headers = api.basic_auth(f"admin:{stack.secrets()['PREFECT_ADMIN_PASSWORD']}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return api.request(method, f"{self.root}/{path}", body, self.headers)

    def newest(self) -> str | None:
        """The id of the last flow run, if there was one."""
        found = self.ask("POST", "flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})
        return found[0]["id"] if found else None

    def states(self, flow_run: str) -> dict[str, str]:
        """The state of each task run of a flow run, by name."""
        task_runs = self.ask("POST", "task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return {task_run["name"]: task_run["state_name"] for task_run in task_runs}


def test_what_failed_runs_again_on_the_same_flow_run(stack, reference) -> None:
    stack.on("prefect")
    page = PrefectPage(stack)
    with stack.edited("models/broken.sql", BROKEN_MODEL), stack.edited("models/after_broken.sql", SKIPPED_MODEL):
        assert "model broken" in stack.invoke("run", code=1).stderr
    failed = page.newest()
    wait_until(lambda: page.states(failed).get("model broken") == "Failed")  # the server writes task runs a moment later
    with stack.edited("models/broken.sql", MENDED_MODEL), stack.edited("models/after_broken.sql", SKIPPED_MODEL):
        out = stack.invoke("run", "--failed").stdout
    assert page.newest() == failed
    assert {line.split()[2] for line in out.splitlines() if line.split()[1:2] == ["model"]} == {"broken", "after_broken"}
    assert stack.hashes() == reference


def test_edited_jobs_need_only_up(stack, reference) -> None:
    """The worker creates the deployments when it starts."""
    runs.edited_jobs(stack, "prefect", reference)


def test_a_cancelled_flow_run_leaves_no_query_and_runs_again_as_a_whole(stack, reference) -> None:
    stack.on("prefect")
    page = PrefectPage(stack)
    slow = "models/slow.sql"
    with stack.edited(slow, runs.SLOW_MODEL):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(runs.SLOW_QUERIES) == "1", 120)
        cancelled = page.newest()
        assert [one["run_id"] for one in runs.ask_runs(stack, "cancel_runs")] == [cancelled]
        code, out = ended(run)
        assert (code, stack.ask(runs.DBT_SESSIONS)) == (1, "0")
        assert "daily ended with canceled on" in out
        assert "success  model     last" in out
        assert page.ask("GET", f"flow_runs/{cancelled}")["state_type"] == "CANCELLED"
        (stack.dbt / slow).write_text("select 1 as slow\n")
        again = runs.record(stack, "--failed")
    assert page.newest() == cancelled
    assert again["state"] == "success"
    assert {"model.small.slow", "model.small.last"} <= {node["unique_id"] for node in again["nodes"]}
    stack.invoke("sql", "drop view slow")
    assert stack.hashes() == reference


def test_two_runs_of_prefect_take_turns(stack, reference) -> None:
    runs.two_runs_take_turns(stack, "prefect", reference)
