"""A project of a person's own in containers, with nothing but `invoke use`."""

from __future__ import annotations

import os

import pytest

from .. import own

# Each builds an image of its own; one shows that the project, its package and its variables reach containers.
ORCHESTRATORS = ["dagster", "airflow", "prefect"] if os.environ.get("CHAOS") else ["dagster"]


@pytest.fixture(scope="module")
def duck(stack, tmp_path_factory):
    """The project on DuckDB, in the shared stack; the shop is there again afterwards, with its data."""
    projects = own.place(tmp_path_factory.mktemp("projects"))
    before = own.listing(projects)
    stack.invoke("down")
    stack.invoke("use", str(projects / "duck"))
    yield projects
    stack.invoke("down")
    stack.invoke("use", "shop")
    assert own.listing(projects) == before


@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_a_project_on_duckdb_with_jobs_of_its_own(stack, duck, name) -> None:
    own.duck_runs(stack, name)
    services = [entry["name"] for entry in stack.status()["services"] if entry["orchestrator"] == name]
    mounts = [mount for service in services for mount in stack.container(service)["Mounts"] if mount["Destination"] == "/opt/dbt/project"]
    assert {(mount["Source"], mount["RW"]) for mount in mounts} == {(str(duck / "duck"), False)}


def test_the_shops_data_is_as_it_was(stack, reference) -> None:
    stack.on("dagster")
    assert stack.hashes() == reference
