"""A user's own projects in every orchestrator, after nothing but `invoke use`; nothing is written into their folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rundbt import jobs

from .. import own, runs
from ..small.test_flow_runs import PrefectPage
from ..stacks import ROOT, copy_checkout, mostly_long
from .conftest import NativeStack, removed

ORCHESTRATORS = ["dagster", "prefect"] if sys.platform == "win32" else ["dagster", "airflow", "prefect"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> Path:
    """A folder with a user's projects."""
    return own.place(tmp_path_factory.mktemp("projects"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory, bare_path) -> Iterator[NativeStack]:
    """A stack that has never run the shop."""
    folder = (tmp_path_factory.mktemp("own") / "switchyard").resolve()
    copy_checkout(ROOT, folder)
    stack = NativeStack(folder, PATH=bare_path)
    with removed(stack):
        yield stack


@pytest.fixture(scope="module")
def duck(stack, projects) -> Iterator[None]:
    """The project on DuckDB."""
    before = own.listing(projects)
    done = stack.invoke("use", str(projects / "duck"))
    assert "dbt project ducks, 2 models, profile pond, target dev (duckdb)" in done.stdout
    assert "is not set" not in done.stdout
    yield
    stack.invoke("down")
    assert own.listing(projects) == before


@pytest.fixture(scope="module")
def tutorial(stack, projects) -> Iterator[None]:
    """A project whose profile has a PostgreSQL on this machine, and the schema public."""
    if stack.status()["orchestrator"]:
        stack.invoke("down")
    before = own.listing(projects)
    done = stack.invoke("use", str(projects / "plain"))
    assert "the stack's own PostgreSQL, database tutorial" in done.stdout
    yield
    assert own.listing(projects) == before


@pytest.mark.parametrize("name", mostly_long(ORCHESTRATORS, "dagster"))
def test_a_project_on_duckdb_with_its_own_jobs(stack, duck, name) -> None:
    own.duck_runs(stack, name)


def test_commands_for_postgresql_are_refused_on_another_warehouse(stack, duck) -> None:
    stack.on("dagster")
    for command in (("sql", "select 1"), ("backup",)):
        done = stack.invoke(*command, code=2)
        assert "duckdb" in done.stderr
        assert "invoke dbt show" in done.stderr
    assert "generate" in stack.invoke("generate", "--orders", "10", code=2).stderr


def test_the_doctor_shows_what_is_locked_for_the_project(stack, duck) -> None:
    stack.on("dagster")
    output = stack.invoke("doctor").stdout
    assert re.search(r"dbt project: .*dbt project ducks, .*locked for it in .*dbt-duckdb==1\.\d+.*duckdb==", output)


def test_the_docs_of_the_project_are_served(stack, duck) -> None:
    stack.on("dagster")
    own.docs_are_served(stack)


def test_dbt_commands_that_would_undo_a_build_are_refused(stack, duck) -> None:
    stack.on("dagster")
    assert "invoke build" in stack.invoke("dbt", "deps", code=2).stderr


def test_an_unknown_job_is_refused_with_the_known_ones(stack, duck) -> None:
    stack.on("dagster")
    assert "nightly, weights" in stack.invoke("run", "--job", "daily", code=2).stderr


def test_another_project_is_refused_while_one_is_up(stack, duck, projects) -> None:
    stack.on("dagster")
    assert "invoke down" in stack.invoke("use", str(projects / "plain"), code=4).stderr


def test_the_git_folder_of_a_package_is_not_installed(stack, duck, projects, tmp_path) -> None:
    """The address of a package can contain a token, and git writes it into the clone."""
    (tmp_path / "dbt_project.yml").write_text("name: cloned\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    file = projects / "duck" / "packages.yml"
    before, then = file.read_text(), file.stat()
    file.write_text(f"{before}  - {{git: '{tmp_path.as_uri()}', revision: main}}\n")
    try:
        stack.invoke("build", "--orch", "dagster")
    finally:
        file.write_text(before)
        os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))  # the fixture asserts that nothing has changed there
    (installed,) = (path.parent for path in (stack.folder / ".stack").rglob("cloned/dbt_project.yml"))
    assert not (installed / ".git").exists()


@pytest.mark.long  # in the short form, the project of tests/small has one
@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_a_tutorial_project_gets_its_own_database(stack, tutorial, name) -> None:
    """One model prints 50,000 lines, one is named like an orchestrator's own task, and the job smoke selects none."""
    stack.on(name)
    run = runs.record(stack, "daily")
    assert run["state"] == "success", run
    assert own.plain_names(runs.outcome(run["nodes"])) == {
        "seed.tutorial.raw_numbers": ("success", 2, False),
        "model.tutorial.a_b": ("success", None, False),
        "model.tutorial.chatty": ("success", None, False),
        "model.tutorial.dbt_build": ("success", None, False),
        "test.tutorial.unique_a_b_id": ("pass", 0, False),
    }
    assert "no node of the project is selected" in stack.invoke("run", "--job", "smoke").stdout
    assert stack.sql("select current_database(), count(*) from public.chatty") == "tutorial\t2"


@pytest.mark.long
@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_nodes_run_even_if_an_orchestrator_cannot_show_their_names(stack, tutorial, projects, name) -> None:
    """Two names that differ only in a dot, one with letters other than a to z, one with 200 characters. (dbt itself refuses a space.)"""
    stack.on(name)
    odd = ["a.b", "münchen", "n" * 200]
    files = [projects / "plain" / "models" / f"{model}.sql" for model in odd]
    for file in files:
        file.write_text("{{ config(alias='odd_" + str(files.index(file)) + "') }} select id from {{ ref('raw_numbers') }}\n")
    try:
        run = runs.record(stack, "daily")
    finally:
        for file in files:
            file.unlink()
    outcome = runs.outcome(run["nodes"])
    assert run["state"] == "success", run["message"]
    assert {f"model.tutorial.{model}" for model in (*odd, "a_b")} <= set(outcome)


@pytest.mark.long
def test_prefect_has_only_the_jobs_of_the_project_in_use(stack, tutorial) -> None:
    """Otherwise a schedule of another project would still start runs."""
    stack.on("prefect")
    assert {deployment["name"] for deployment in PrefectPage(stack).ask("POST", "deployments/filter", {})} == set(jobs.DEFAULT)
