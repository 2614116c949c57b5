"""``python -m compare.pages``: write every page of docs/ that is generated from the code."""

from __future__ import annotations

from pathlib import Path

from compare import glance, reference
from compare.report import Report
from switchyard import reference as commands

DOCS = Path(__file__).resolve().parent.parent / "docs"


def pages() -> dict[Path, str]:
    """The text of each page, by its file."""
    found = {DOCS / "commands.md": commands.text(), DOCS / "compare-rows.md": reference.text()}
    for figures in sorted(DOCS.glob("comparison/*/report.json")):
        pictures = sorted(path.name for path in figures.parent.glob("*.png"))
        found[figures.with_name("README.md")] = glance.markdown(Report.read(figures), pictures)
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
