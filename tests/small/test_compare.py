"""A quick comparison of the small project: every cell is measured, the page loads nothing, and the user's stack is unchanged."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from ..pages_of_reports import Reader
from ..stacks import ROOT, unavailable


@pytest.mark.parametrize("names", ["dagster,prefect", pytest.param("airflow,dagster,prefect", marks=pytest.mark.long)])
def test_a_quick_comparison(stack, reference, tmp_path, names) -> None:
    stack.on("dagster")
    before = [service["id"] for service in stack.status()["services"]]
    shown = stack.invoke("compare", "--quick", "--orch", names, "--runtime", "native", "--out", str(tmp_path / "report")).stdout
    assert f" left; step 1 of {5 * len(names.split(','))}: " in shown
    assert [service["id"] for service in stack.status()["services"]] == before
    assert stack.hashes() == reference
    checkout = hashlib.sha256(str(stack.folder).encode()).hexdigest()[:8]
    assert list(Path(tempfile.gettempdir()).glob(f"switchyard-compare-{checkout}-*")) == []
    complete(tmp_path / "report", set(names.split(",")))
    opened(tmp_path / "report" / "report.html", stack.folder)


def complete(folder: Path, names: set[str]) -> None:
    """Assert that each cell of the report has a measured value, that each verdict is good, and that the page loads nothing."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["complete"]
    cells = {(row["id"], name): cell for row in report["rows"].values() for name, cell in row["cells"].items()}
    assert {name for _, name in cells} == names
    assert {key: cell for key, cell in cells.items() if [one["why"] for one in cell] != [""] or cell[0]["value"] is None} == {}
    verdicts = {key: one["verdict"] for key, (one,) in cells.items() if one["good"] is False}
    assert verdicts == {}
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert page.loaded == []
    assert len(page.cells) > 2 * len(cells)
    assert not any("not measured" in cell for cell in page.cells)


def opened(page: Path, checkout: Path) -> None:
    """Assert that the page reports and requests nothing in a browser, and fits on each screen."""
    argv = [str(checkout / ".stack" / "compare" / "bin" / "python"), "-I", "-X", "utf8", str(ROOT / "tests" / "opened_page.py")]
    argv += [str(checkout / "compare" / "shots.py"), page.as_uri()]
    wrong = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout)
    if wrong is None:
        unavailable("there is no Chromium, Chrome or Edge")
    assert wrong == []
