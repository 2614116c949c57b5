"""What Prefect's page shows of a build; the code is the same in containers."""

from __future__ import annotations

from typing import Any

from switchyard import api

BROKEN_MODEL = "select no_such_column from {{ ref('fct_orders') }}\n"
MENDED_MODEL = "select 1 as no_such_column from {{ ref('fct_orders') }} limit 1\n"
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


def test_what_failed_runs_again_on_the_same_flow_run(stack, reference) -> None:
    stack.on("prefect")
    page = Page(stack)
    with stack.edited("models/intermediate/broken.sql", BROKEN_MODEL), stack.edited("models/intermediate/after_broken.sql", SKIPPED_MODEL):
        assert "model broken" in stack.invoke("run", code=1).stderr
    failed = page.newest()
    assert page.states(failed)["model broken"] == "Failed"
    with stack.edited("models/intermediate/broken.sql", MENDED_MODEL), stack.edited("models/intermediate/after_broken.sql", SKIPPED_MODEL):
        out = stack.invoke("run", "--failed").stdout
    assert page.newest() == failed
    assert {line.split()[2] for line in out.splitlines() if line.split()[1:2] == ["model"]} == {"broken", "after_broken"}
    assert stack.hashes() == reference
