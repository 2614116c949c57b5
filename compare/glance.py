"""The README of a folder with a report, from its JSON; ``python -m compare.pages`` writes those of docs/comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare.main import SECTIONS
from compare.report import Report
from compare.seeing import SHOWN

INTRO = """\
[report.html](report.html) is the whole page, one file: download it, and open it in a browser. It has the charts, a dot for every
measurement that has a unit, the settings and the integrations' code. [report.json](report.json) has every measurement.
`invoke compare{flag}` made both, and `python -m compare.pages` made this page from the figures."""
HOW = """\
Each figure is the median, with the lowest and the highest in brackets. A figure is bold if all of its measurements are better than
every measurement of the others, and there are at least three of each; a count that is the same each time needs only one. ✗ marks a bad
verdict. [How each was measured](#how-each-was-measured)."""


def markdown(report: Report, pictures: list[str]) -> str:
    """The table of all rows, each section under its sentence.

    Args:
        report: the figures.
        pictures: names of PNG files in the same folder.
    """
    view, depth = report.view(SECTIONS), report.content["depth"]
    parts = [
        f"# {view['title']}",
        INTRO.format(flag="" if depth == "default" else f" --{depth}"),
        table(["", ""], [list(fact) for fact in view["facts"]]),
        HOW,
        view["glance"],
    ]
    for section in view["sections"]:
        rows = [[row["title"], *map(cell, row["cells"])] for row in section["rows"]]
        parts += [f"## {section['title']}", section["sentence"], table(["", *view["names"]], rows)]
    if pictures:
        parts += ["## Pictures", *(f"![{alternative(Path(name).stem, report)}]({name})" for name in pictures)]
    # The texts are the report's own: those of today may describe another measurement.
    explained = [[row["title"], row["what"]] for section in view["sections"] for row in section["rows"]]
    parts += ["## How each was measured", table(["", ""], explained)]
    return "\n\n".join(parts) + "\n"


def alternative(stem: str, report: Report) -> str:
    """The text alternative of a picture of a product's page; its file's name is ORCHESTRATOR-WHAT."""
    name, _, what = stem.rpartition("-")
    return f"{SHOWN.get(what, stem)}, on the page of {report.titles.get(name, name)}"


def cell(one: dict[str, Any]) -> str:
    """A cell: value, spread, verdicts, or why there is none."""
    value = f"**{one['value']}**" if one["best"] else one["value"]
    spread = f"({one['spread']})" if "to" in one["spread"] else ""
    verdicts = "; ".join(verdict["text"] + ("" if verdict["good"] in (True, None) else " ✗") for verdict in one["verdicts"])
    measured = " ".join(filter(None, (value, spread)))
    if measured and verdicts and not verdicts.startswith("of "):
        measured += ";"
    return " ".join(filter(None, (measured, verdicts, f"*{one['why'].replace('*', '')}*" if one["why"] else "")))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(literal, line)) + " |" for line in lines)


def literal(text: str) -> str:
    """A text for a cell, escaped so that no part of it is taken for HTML or the end of a cell."""
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(mark, written)
    return text
