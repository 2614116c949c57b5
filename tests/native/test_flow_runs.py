"""What Prefect's page shows of a build; the code is the same in containers."""

from __future__ import annotations

from typing import Any

from switchyard import api

from .. import runs
from ..interruptions import ended, typed
from ..stacks import wait_until

BROKEN_MODEL = "select no_such_column from {{ ref('fct_orders') }}\n"
SKIPPED_MODEL = "select * from {{ ref('broken') }}\n"


class Page:
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

    def graph(self, flow_run: str) -> list[dict[str, Any]]:
        """The boxes of a flow run, each with those before it."""
        return [box for _, box in self.ask("GET", f"flow_runs/{flow_run}/graph-v2")["nodes"]]


def test_each_node_has_a_task_run_that_tells_how_dbt_fares_with_it(stack, reference) -> None:
    stack.on("prefect")
    page = Page(stack)
    with (
        stack.edited("models/intermediate/broken.sql", BROKEN_MODEL),
        stack.edited("models/intermediate/after_broken.sql", SKIPPED_MODEL),
        stack.edited("models/intermediate/slow.sql", runs.SLOW_MODEL),
    ):
        last = page.newest()
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or page.newest() != last, 120)
        flow_run = page.newest()
        wait_until(lambda: run.poll() is not None or page.states(flow_run).get("slow") == "Running", 120)  # while it goes on
        runs.ask_runs(stack, "cancel_runs")
        _, out = ended(run)
    wait_until(lambda: "Running" not in page.states(flow_run).values())

    told = {line.split()[2]: line.split()[0] for line in out.splitlines() if line.split()[1:2] in (["seed"], ["model"], ["snapshot"])}
    expected = {"success": "Completed", "error": "Failed", "skipped": "Skipped"}
    assert set(told.values()) == set(expected), out
    # The one that was cut off has failed as dbt sees it, where dbt came to say so.
    assert page.states(flow_run) == {"slow": "Crashed"} | {name: expected[status] for name, status in told.items()}

    boxes = {box["id"]: box for box in page.graph(flow_run)}
    parents = {box["label"]: {boxes[parent["id"]]["label"] for parent in box["parents"]} for box in boxes.values()}
    assert parents["after_broken"] == {"broken"}
    assert parents["broken"] == {"fct_orders"}
    assert parents["slow"] >= {"rpt_sales_summary", "product_prices"}
    for box in boxes.values():  # the times are dbt's
        assert box["start_time"] <= box["end_time"], box
        assert all(boxes[parent["id"]]["end_time"] <= box["start_time"] for parent in box["parents"]), box
    assert stack.hashes() == reference
