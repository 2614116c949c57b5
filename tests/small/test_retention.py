"""The orchestrators delete the history of old runs, each with its own mechanism."""

from __future__ import annotations

import pytest

from ..native.conftest import ask_as
from ..stacks import wait_until

OLD = "interval '40 days'"
# For each database, the SQL that backdates the oldest run.
AGE = {
    "dagster": f"update public.runs set create_timestamp = create_timestamp - {OLD} where id = (select min(id) from public.runs)",
    "airflow": f"""update public.dag_run set start_date = start_date - {OLD}, end_date = end_date - {OLD}
                   where id = (select min(id) from public.dag_run)""",
    "prefect": f"""update public.flow_run set start_time = start_time - {OLD}, end_time = end_time - {OLD}
                   where created = (select min(created) from public.flow_run)""",
}
RUNS = {"dagster": "runs", "airflow": "dag_run where dag_id = 'daily'", "prefect": "flow_run where state_type = 'COMPLETED'"}


@pytest.mark.long
@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_old_runs_are_deleted_and_new_ones_are_kept(stack, reference, name) -> None:
    count = f"select count(*) from public.{RUNS[name]}"
    stack.on(name)
    stack.invoke("run")
    stack.invoke("run")
    before = int(ask_as(stack, "postgres", name, count))
    ask_as(stack, "postgres", name, AGE[name])
    stack.invoke("down")
    stack.invoke("up", "--orch", name)
    wait_until(lambda: int(ask_as(stack, "postgres", name, count)) < before, 120)
    assert int(ask_as(stack, "postgres", name, count)) == before - 1
    stack.invoke("run")
    assert stack.hashes() == reference
