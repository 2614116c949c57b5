"""Scaling: what changes in services and settings for two workers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial
from switchyard.eject import Plain
from switchyard.placeholders import SETTING

LINES = Row(
    "worker_lines",
    "Lines that change for two workers",
    "The services in the orchestrator's compose file with `WORKERS=2`, compared with those with `WORKERS=0`: lines that are added or"
    " removed, with everything that several services share written out for each. They are Switchyard's. No other file differs: the DAGs,"
    " assets and flows are the same.",
    better=None,
)
SERVICES = Row(
    "worker_services",
    "Additional containers for two workers",
    "In the same file: the workers, and a broker if the product uses one.",
    better=None,
)
WORKERS = "2"


def changed(trial: Trial) -> Iterator[Found]:
    """Compare the services with and without workers."""
    file = trial.rig.orchestrators[trial.name].file
    before, after = services(file, ""), services(file, WORKERS)
    one, two = (yaml.dump(found, Dumper=Plain, sort_keys=False, width=1000).splitlines() for found in (before, after))
    diff = list(difflib.unified_diff(one, two, "WORKERS=0", f"WORKERS={WORKERS}", n=1, lineterm=""))
    yield Found(LINES.id, sum(line[0] in "+-" for line in diff[2:]), parts={"diff": diff})
    yield Found(SERVICES.id, containers(after) - containers(before))


def services(file: Path, workers: str) -> dict[str, Any]:
    """The services that a compose file starts with this number of workers; other variables are not filled in.

    Args:
        file: the compose file.
        workers: their number; empty for none.
    """
    found = {}
    for name, body in yaml.safe_load(filled(file.read_text(encoding="utf-8"), workers))["services"].items():
        if "extends" in body:
            base = file.with_name(body["extends"]["file"]).read_text(encoding="utf-8")
            body = {**yaml.safe_load(filled(base, workers))["services"][body["extends"]["service"]], "deploy": body["deploy"]}
        if int(body.get("deploy", {}).get("replicas", 1)):
            found[name] = body
    return found


def filled(text: str, workers: str) -> str:
    """A text with the value of `WORKERS` filled in, as by Compose."""

    def value(match: re.Match[str]) -> str:
        _, key, kind, rest = match.groups()
        if key != "WORKERS":
            return match[0]
        return str(rest if workers else "") if kind == ":+" else workers or str(rest)

    return SETTING.sub(value, text)


def containers(found: dict[str, Any]) -> int:
    """How many containers some services have."""
    return sum(int(body.get("deploy", {}).get("replicas", 1)) for body in found.values())


def sentence(report: Report) -> str:
    """The section's first sentence."""
    what = "lines of Switchyard's services that change, shared ones written out for each"
    return f"For two workers, {what}: {report.ranking(LINES)}. In `.env` it is one line."


def diffs(report: Report) -> dict[str, Any]:
    """What changes for each orchestrator."""
    found = {title: report.typical(LINES, name) for name, title in report.titles.items()}
    return {
        "title": "What changes for two workers",
        "lead": "The services, with everything that they share written out. Nothing else changes.",
        "columns": [
            {"title": title, "files": [{"path": "WORKERS=2.diff", "text": "\n".join(one["parts"]["diff"])}]}
            for title, one in found.items()
            if one and "diff" in one["parts"]
        ],
    }


SECTION = Section(
    "scaling",
    "Scaling",
    (Scenario("two workers", changed, (LINES, SERVICES), 1, "default", once=True),),
    sentence,
    code=diffs,
)
