"""A user's own project in containers, after nothing but `invoke use`."""

from __future__ import annotations

import pytest

from .. import own


# Each builds its own image, with an adapter; in the short form, tests/small has a user's own project, natively.
@pytest.mark.long
@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_a_project_on_duckdb_with_its_own_jobs(stack, reference, tmp_path, name) -> None:
    projects = own.place(tmp_path)
    before = own.listing(projects)
    stack.invoke("down")
    stack.invoke("use", str(projects / "duck"))
    try:
        own.duck_runs(stack, name)
        services = [entry["name"] for entry in stack.status()["services"] if entry["orchestrator"] == name]
        mounts = [mount for service in services for mount in stack.container(service)["Mounts"]]
        ours = {(mount["Source"], mount["RW"]) for mount in mounts if mount["Destination"] == "/opt/dbt/project"}
        assert ours == {(str(projects / "duck"), False)}
    finally:
        stack.invoke("down", "--force")
        stack.invoke("use", "shop")
    assert own.listing(projects) == before
    stack.on("dagster")
    assert stack.hashes() == reference
