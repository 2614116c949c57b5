"""The text of docs/compare-rows.md, from the scenarios; ``python -m compare.pages`` writes it."""

from __future__ import annotations

from compare.main import SECTIONS
from compare.model import Scenario

FLAGS = {"quick": "`--quick`", "default": "", "full": "`--full`"}


def needs(scenario: Scenario) -> str:
    """The text of the last column."""
    return ", ".join(filter(None, [FLAGS[scenario.depth], "once" if scenario.single else ""]))


def text() -> str:
    """The page."""
    parts = [
        "# What a comparison measures",
        "Made from the code of [`invoke compare`](compare.md). The last column has the flag that a row needs, if any, and whether it is"
        " measured once, in the first round only, unless `--rounds` is typed.",
    ]
    for section in SECTIONS:
        rows = [
            f"| {row.title} | {row.what.replace('<', '&lt;')} | {row.unit or 'count'} | {needs(scenario)} |"
            for scenario in section.scenarios
            for row in scenario.rows
        ]
        parts.append(f"## {section.title}: `--only {section.id}`")
        parts.append("\n".join(["| row | how it is measured | unit | needs |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"
