"""What the orchestrators know of old runs is deleted, by their own means."""

from __future__ import annotations

import subprocess

import pytest

from ..stacks import wait_until

OLD = "interval '40 days'"
# How an ended run is made older, in each database; it is done to the older of two.
AGE = {
    "dagster": f"update public.runs set create_timestamp = create_timestamp - {OLD} where id = (select min(id) from public.runs)",
    "airflow": f"""update public.dag_run set start_date = start_date - {OLD}, end_date = end_date - {OLD}
                   where id = (select min(id) from public.dag_run)""",
    "prefect": f"""update public.flow_run set start_time = start_time - {OLD}, end_time = end_time - {OLD}
                   where created = (select min(created) from public.flow_run)""",
}
RUNS = {"dagster": "runs", "airflow": "dag_run where dag_id = 'daily'", "prefect": "flow_run where state_type = 'COMPLETED'"}


def metadata(stack, name: str, statement: str) -> str:
    """What the superuser's statement answers in an orchestrator's database."""
    argv = [stack.programs / "psql", "--host", "127.0.0.1", "--port", str(stack.ports["POSTGRES_PORT"]), "--username", "postgres"]
    env = {"PGPASSWORD": stack.secrets()["POSTGRES_PASSWORD"]}
    return subprocess.check_output([*argv, "--dbname", name, "-Atc", statement], env=env, text=True).strip()


@pytest.mark.long
@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_old_runs_are_deleted_and_new_ones_are_not(stack, reference, name) -> None:
    count = f"select count(*) from public.{RUNS[name]}"
    stack.on(name)
    stack.invoke("run")
    stack.invoke("run")
    before = int(metadata(stack, name, count))
    metadata(stack, name, AGE[name])
    stack.invoke("down")
    stack.invoke("up", "--orch", name)
    wait_until(lambda: int(metadata(stack, name, count)) < before, 120)
    assert int(metadata(stack, name, count)) == before - 1
    stack.invoke("run")
    assert stack.hashes() == reference
