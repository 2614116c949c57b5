"""dbt-project-evaluator reports no problem in the shop.

The packages come from folders, since not every machine reaches dbt's hub: PROJECT_EVALUATOR is a folder that holds checkouts of
dbt-labs/dbt-project-evaluator and dbt-labs/dbt-utils, as `dbt_project_evaluator` and `dbt_utils`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ..stacks import ROOT

FOLDER = os.environ.get("PROJECT_EVALUATOR", "")

VARIABLES = {
    # Keys of several columns are tested by the shop's own package; dbt_utils has unique_combination_of_columns for that.
    "primary_key_test_macros": [["dbt.test_unique", "dbt.test_not_null"], ["shop_checks.test_unique_combination"]],
    "marts_prefixes": ["fct_", "dim_", "rpt_"],  # the reports are marts, and are in the marts' folder
    "other_prefixes": ["util_"],
}
# The exceptions to the rules: the evaluator's model, column, value, and why.
EXCEPTIONS = [
    ("fct_sources_without_freshness", "resource_name", "shop.raw_products", "products can stay the same for months"),
    ("fct_model_fanout", "parent", "fct_orders", "each of its three last models has its own audience, with an exposure"),
]


@pytest.mark.skipif(not FOLDER, reason="PROJECT_EVALUATOR is not set to a folder with the packages")
def test_the_evaluator_reports_no_problem(stack, tmp_path) -> None:
    stack.on("dagster")
    project = tmp_path / "shop"
    shutil.copytree(ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs", "dbt_packages"))
    for name in ("dbt_utils", "dbt_project_evaluator"):
        shutil.copytree(Path(FOLDER, name), tmp_path / name, ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "dbt_project_evaluator" / "packages.yml").write_text("packages:\n  - local: ../dbt_utils\n")
    edit(
        project / "packages.yml", lambda found: found["packages"].extend([{"local": "../dbt_utils"}, {"local": "../dbt_project_evaluator"}])
    )
    (project / "package-lock.yml").unlink()
    edit(project / "dbt_project.yml", evaluated)
    rows = "\n".join(
        ",".join(exception) for exception in [("fct_name", "column_name", "id_to_exclude", "comment"), *map(quoted, EXCEPTIONS)]
    )
    (project / "seeds" / "dbt_project_evaluator_exceptions.csv").write_text(rows + "\n")

    env = {**stack.root("dagster-code").environ(), "DBT_TARGET_PATH": str(tmp_path / "target"), "DBT_LOG_PATH": str(tmp_path / "logs")}
    env |= {"DBT_PROJECT_EVALUATOR_SEVERITY": "error", "DBT_PACKAGES_PATH": str(tmp_path / "packages"), "DBT_PROFILES_DIR": str(project)}
    env.pop("DBT_PROJECT_DIR", None)
    dbt = shutil.which("dbt", path=env["PATH"])
    try:
        for args in (["deps"], ["build", "--select", "package:dbt_project_evaluator", "dbt_project_evaluator_exceptions"]):
            done = subprocess.run([dbt, *args, "--profiles-dir", str(project)], cwd=project, env=env, capture_output=True, text=True)
            print(done.stdout)
            assert done.returncode == 0, done.stdout[-3000:]
        results = json.loads((tmp_path / "target" / "run_results.json").read_bytes())["results"]
        tests = [result for result in results if result["unique_id"].startswith("test.")]
        assert len(tests) > 25
        assert {result["status"] for result in results} <= {"success", "pass"}
    finally:
        stack.invoke("sql", "drop schema if exists evaluator cascade")


def edit(file: Path, change) -> None:
    """Change a YAML file."""
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(found)
    file.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def evaluated(project: dict) -> None:
    """Add the settings that the evaluator's documentation requires to the project's settings."""
    project["vars"]["dbt_project_evaluator"] = VARIABLES
    project["dispatch"] = [{"macro_namespace": "dbt", "search_order": ["dbt_project_evaluator", "dbt"]}]
    project["models"]["dbt_project_evaluator"] = {"+schema": "evaluator"}
    project["seeds"]["dbt_project_evaluator"] = {"+enabled": False}  # the shop has its own exceptions
    project["seeds"]["shop"]["dbt_project_evaluator_exceptions"] = {"+schema": "evaluator"}


def quoted(exception: tuple[str, ...]) -> tuple[str, ...]:
    """An exception, quoted for CSV, because the text may contain a comma."""
    return tuple(f'"{value}"' for value in exception)
