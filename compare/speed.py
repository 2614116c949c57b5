"""Speed: a run beside a bare `dbt build`, and where its time goes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from bench.run import PHASES, bare, orchestrated
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Span, Trial

RUN = Row("run", "A run", "`invoke run` of the whole project, from typing it to the prompt.", "s")
RATIO = Row(
    "run_ratio",
    "A run ÷ a bare dbt build",
    "The same run, divided by a plain `dbt build` just before it, in the same environment with the project already parsed.",
    "×",
)
TOGETHER = Row("parallel", "Nodes at the same time", "The most nodes that PostgreSQL worked for at one moment of that run.", better=None)


def run(trial: Trial) -> Iterator[Found]:
    """A bare build, then a run."""
    stand = trial.stand
    bare(stand, trial.name, "parse")
    build = bare(stand, trial.name).seconds
    found = orchestrated(stand, trial.name)
    ended = found.marks[-1]
    yield Found(RUN.id, found.seconds, parts={"phases": found.phases})
    yield Found(RATIO.id, found.seconds / build, parts={"run": found.seconds, "dbt build": build})
    trial.require_nodes()
    spans = trial.spans(found.began, ended)
    nodes = [[node, round(span.began - found.began, 3), round(span.ended - found.began, 3)] for node, span in spans.items()]
    yield Found(TOGETHER.id, together(list(spans.values())), parts={"nodes": nodes})


def together(spans: list[Span]) -> int:
    """The most that there are at one moment."""
    steps = sorted([(span.began, 1) for span in spans] + [(span.ended, -1) for span in spans])
    return max(accumulate(step for _, step in steps))


def sentence(report: Report) -> str:
    """The section's first."""
    return f"Divided by a bare dbt build of the same project, a run takes {report.ranking(RATIO)}."


def pictures(report: Report) -> list[dict[str, Any]]:
    """The phases of a run, and its nodes over time, of each orchestrator's run in the middle."""
    chosen = {title: report.typical(RUN, name) for name, title in report.titles.items()}
    phases = {title: found["parts"]["phases"] for title, found in chosen.items() if found}
    nodes = {title: report.beside(TOGETHER, name, chosen[title]) for name, title in report.titles.items()}
    nodes = {title: found["parts"]["nodes"] for title, found in nodes.items() if found}
    made: list[dict[str, Any]] = []
    if phases:
        made.append({"kind": "phases", "title": "Where the time of a run goes", "phases": list(PHASES), "runs": phases})
    if nodes:
        made.append({"kind": "gantt", "title": "One run: when PostgreSQL worked for each node", "runs": nodes})
    return made


SECTION = Section("speed", "Speed", (Scenario("run and bare dbt build", run, (RUN, RATIO, TOGETHER), 30),), sentence, pictures)
