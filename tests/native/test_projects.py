"""Every orchestrator reports the same nodes and statuses as dbt alone, for ordinary features, whole and broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rundbt import results

from .. import runs
from ..stacks import ROOT
from .conftest import NativeStack
from .test_dagster_page import GRAPH, ask

# Variants of tests/projects/ordinary: the files that are changed, and their new content; `old|new` replaces a part of a file.
VARIANTS: dict[str, dict[str, str]] = {
    "whole": {},
    "model, batch and source": {
        "models/fragile.sql": "select no_such_column as id from {{ ref('clicks') }}\n",
        "models/clicks.sql": "select id, current_date - id * interval '1 day' as clicked_at from generate_series(0, 1) as id\n",
        "models/daily_clicks.sql": "{{ var('divisor', 1) }}|id",  # today's row divides by zero
        "models/models.yml": "data_tests: [not_null]|data_tests: [unique, accepted_values: {arguments: {values: [nothing]}}]",
    },
    "tests and hook after": {
        "models/fragile.sql": "select 8 as id from {{ ref('clicks') }}\n",  # its unit test fails, and so it is skipped
        "tests/reads_no_model.sql": "select 1 as nothing\n",
        "dbt_project.yml": "select {{ var('end', 1) }} as hook_after|select no_such_column",
    },
    "hook before": {"dbt_project.yml": "select 1 as hook_before|select no_such_column"},
    "parse": {"models/fragile.sql": "select * from {{ ref('nowhere') }}\n"},
    "an ephemeral model": {
        "models/passed_on.sql": "{{ config(materialized='ephemeral') }} select {{ run_query('select nowhere') if execute }}",
        "models/reads_it.sql": "select * from {{ ref('passed_on') }}\n",
    },
    "an empty model": {"models/nothing.sql": ""},  # dbt has it in its manifest, and leaves it out of a build
}  # fmt: skip
ORCHESTRATORS = ["dagster", "prefect"] if sys.platform == "win32" else ["dagster", "airflow", "prefect"]


def plain_dbt(stack: NativeStack, target: Path, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """Run dbt itself while Dagster is up, and return its exit code and its records."""
    env = {**stack.root("dagster-code").environ(), "DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(target)}
    dbt = shutil.which("dbt", path=env["PATH"])
    done = subprocess.run([dbt, *args], cwd=stack.dbt, env=env, capture_output=True, text=True)
    print(done.stdout)
    return done.returncode, results.read(target)


@pytest.mark.long  # before `ordinary` replaces it
@pytest.mark.parametrize("text", ["", "select no_such_column from {{ ref('fct_orders') }}\n"], ids=["whole", "broken"])
def test_the_shop_has_the_same_results_everywhere(stack, reference, tmp_path, text) -> None:
    stack.on("dagster")
    stack.invoke("run")
    path = "models/marts/fct_daily_sales.sql"
    with stack.edited(path, text or (stack.dbt / path).read_text()):
        code, nodes = plain_dbt(stack, tmp_path, "build")
        for name in ORCHESTRATORS:
            stack.on(name)
            run = runs.record(stack)
            assert runs.outcome(run["nodes"]) == runs.outcome(nodes), name
            assert run["state"] == ("failure" if code else "success")
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.fixture(scope="module")
def ordinary(stack, reference) -> Iterator[NativeStack]:
    """The stack with the project `ordinary` instead of the shop, and Dagster up."""
    away = stack.folder / "shop"
    stack.invoke("down")
    stack.dbt.rename(away)
    try:
        shutil.copytree(ROOT / "tests" / "projects" / "ordinary", stack.dbt)
        stack.invoke("up", "--orch", "dagster")
        yield stack
    finally:
        stack.invoke("down", "--force")
        shutil.rmtree(stack.dbt)
        away.rename(stack.dbt)
    stack.on("dagster")
    for schema in stack.sql("select nspname from pg_namespace where nspname like 'analytics%'").split():
        stack.invoke("sql", f"drop schema {schema} cascade")
    assert stack.hashes() == reference


def broken(stack: NativeStack, variant: str) -> ExitStack:
    """Change the project as the variant does, for the time of the block."""
    edits = ExitStack()
    for path, text in VARIANTS[variant].items():
        file = stack.dbt / path
        if "|" in text:
            old, new = text.split("|")
            assert old in file.read_text()
            text = file.read_text().replace(old, new)
        edits.enter_context(stack.edited(path, text))
    return edits


@pytest.fixture(scope="module")
def expected(ordinary, tmp_path_factory) -> dict[str, tuple[int, dict]]:
    """dbt's own result for each variant: its exit code, and the outcome of each node."""
    ordinary.on("dagster")
    plain_dbt(ordinary, tmp_path_factory.mktemp("first"), "build")  # so that, for example, a snapshot has the rows of a second build
    found = {}
    for variant in VARIANTS:
        with broken(ordinary, variant):
            code, nodes = plain_dbt(ordinary, tmp_path_factory.mktemp("plain"), "build")
        found[variant] = code, runs.outcome(nodes)
    return found


CASES = [(name, variant) for name in ORCHESTRATORS for variant in VARIANTS]
# One or two broken variants for each orchestrator; test_switch.py has the shop whole on each.
SHORT = {
    ("airflow", "model, batch and source"),
    ("prefect", "tests and hook after"),
    ("dagster", "parse"),
    ("airflow", "an empty model"),
}


@pytest.mark.parametrize(("name", "variant"), [pytest.param(*case, marks=() if case in SHORT else pytest.mark.long) for case in CASES])
def test_every_orchestrator_has_the_results_of_dbt_itself(ordinary, expected, name, variant) -> None:
    ordinary.on(name)
    code, nodes = expected[variant]
    with broken(ordinary, variant):
        run = runs.record(ordinary)
    assert runs.outcome(run["nodes"]) == nodes
    assert run["state"] == ("failure" if code else "success"), run
    assert bool(nodes) != (variant == "parse")
    if variant == "an ephemeral model":  # dbt has no result of it
        assert "passed_on" in run["message"]
    if not nodes:
        assert "nowhere" in run["message"]
        assert "Traceback" not in run["message"]
    if variant == "whole":  # no test has the tag that this job selects
        done = ordinary.invoke("run", "--job", "smoke")
        assert "no node of the project is selected" in done.stdout


def test_a_variable_can_enable_a_model_that_is_not_in_the_definitions(ordinary) -> None:
    ordinary.on("dagster")
    with ordinary.edited("models/on_demand.sql", "{{ config(enabled=var('on_demand', false)) }} select 1 as one\n"):
        output = ordinary.invoke("run", "--vars", "{on_demand: true}").stdout
    assert re.search("success +model +on_demand ", output)


def test_names_that_only_dbt_accepts_hide_no_asset(ordinary) -> None:
    ordinary.on("dagster")
    nodes = {"/".join(node["assetKey"]["path"]): node["dependencyKeys"] for node in ask(ordinary, GRAPH)["assetNodes"]}
    assert {"path": ["outside", "Odd_name_"]} in nodes["ordinary/with-dash"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Airflow does not run there")
def test_a_unit_test_that_failed_is_run_again_and_fails_again(ordinary) -> None:
    """Airflow has no task for a unit test."""
    ordinary.on("airflow")
    with ordinary.edited("models/fragile.sql", VARIANTS["tests and hook after"]["models/fragile.sql"]):
        failed = runs.record(ordinary)
        again = runs.record(ordinary, "--failed")
    assert failed["state"] == again["state"] == "failure"
    kinds = {node["kind"] for node in again["nodes"] if node["status"] == "fail"}
    assert kinds == {"unit_test"}


def test_each_variant_breaks_what_it_should(expected) -> None:
    """Otherwise the tests would compare less than their names promise."""
    statuses = {variant: {status for status, _, _ in nodes.values()} for variant, (_, nodes) in expected.items()}
    assert statuses["whole"] == {"success", "pass", "warn", "no-op"}
    assert {"error", "skipped", "partial success", "fail"} <= statuses["model, batch and source"]
    assert {"fail", "skipped", "error"} <= statuses["tests and hook after"]
    assert "error" in statuses["hook before"]
    assert "skipped" in statuses["an ephemeral model"]
    assert [code for code, _ in expected.values()] == [0, 1, 1, 1, 2, 1, 0]
    operations = [unique_id for unique_id in expected["whole"][1] if unique_id.startswith("operation.")]
    assert len(operations) == 2
