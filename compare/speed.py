"""Speed: a run compared with a bare `dbt build`, and where its time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import linear_regression, median
from typing import Any

from bench import many
from bench.run import NO_WARM_DBT, PHASES, WARM_DBT, bare, forms, orchestrated
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import RUN_TIMEOUT_S, Span, Trial, afterwards, reason
from switchyard.errors import StackError

# Airflow's and Dagster's use the warm dbt, so a best value would not be the product's own merit.
RUN = Row("run", "A run", "`invoke run` of the whole project, from typing it to the prompt.", "s", None)
RATIO = Row(
    "run_ratio",
    "A run ÷ a bare dbt build",
    "The same run, divided by a plain `dbt build` just before it, in the same environment with the project already parsed. Airflow's and"
    " Dagster's runs use Switchyard's warm dbt, a process with dbt loaded and the project parsed; Prefect's flow loads dbt as a library in"
    " each run.",
    "×",
    None,
)
PLAIN = Row(
    "run_plain",
    "A run, plain dbt",
    "As `A run`, but the orchestrator starts dbt without Switchyard's warm dbt. Prefect never uses that, so this is its run above.",
    "s",
)
PLAIN_RATIO = Row("run_plain_ratio", "A run, plain dbt ÷ a bare dbt build", "The same, divided by that bare build.", "×")
FORM = "lean"
LEAN = Row(
    "run_lean",
    "A run, lean form",
    "As `A run`, with an option of Switchyard's that makes a run faster and its page less detailed: Airflow with `INTEGRATION=lean`, one"
    " task for the whole build instead of a task for each node. With Switchyard's warm dbt.",
    "s",
    None,
)
LEAN_RATIO = Row("run_lean_ratio", "A run, lean form ÷ a bare dbt build", "The same, divided by a bare build just before it.", "×", None)
TOGETHER = Row("parallel", "Nodes at the same time", "The most nodes that PostgreSQL executed at one moment of that run.", better=None)

SLOPE = Row(
    "node_cost",
    "Each further node",
    "The seconds of `invoke run` minus those of a bare `dbt build`, with 10, 100 and 500 more models, each a small table. The slope of the"
    " line through these points, by least squares.",
    "ms",
)
SIZES = (10, 100, 500)


def run(trial: Trial) -> Iterator[Found]:
    """A bare build, then a run."""
    rig = trial.rig
    bare(rig, trial.name, "parse")
    build = bare(rig, trial.name).seconds
    found = orchestrated(rig, trial.name)
    ended = found.marks[-1]
    trial.ran = found, build
    yield Found(RUN.id, found.seconds, parts={"phases": found.phases})
    yield Found(RATIO.id, found.seconds / build, parts={"run": found.seconds, "dbt build": build})
    trial.require_nodes()
    spans = trial.spans(found.began, ended)
    nodes = [[node, round(span.began - found.began, 3), round(span.ended - found.began, 3)] for node, span in spans.items()]
    yield Found(TOGETHER.id, together(list(spans.values())), parts={"nodes": nodes})


def nodes(trial: Trial) -> Iterator[Found]:
    """A bare build, then a run, with more and more models."""
    rig, points, why = trial.rig, [], ""
    try:
        for size in SIZES:
            with many.more(trial.folder("models"), size):
                warm = trial.run("--select", "bench_000")  # parsing and loading once is not a cost of each run
                if warm.code:
                    raise StackError(f"With {size} models more, a run of one of them ended with exit code {warm.code}.")
                bare(rig, trial.name, "parse")
                build = bare(rig, trial.name).seconds
                points.append({"models": size, "run": orchestrated(rig, trial.name, RUN_TIMEOUT_S).seconds, "dbt build": build})
    except Exception as error:  # keep the points so far, and drop the tables
        why = f"with {size} models more: {reason(error)}"
        with contextlib.suppress(StackError):
            rig.invoke("run", "--cancel")
    trial.drop(many.COLUMN)
    trial.run()  # without these models, as for the other scenarios
    if why:
        yield Found(SLOPE.id, why=why, parts={"points": points})
    else:
        yield Found(SLOPE.id, 1000 * slope([(point["models"], beyond(point)) for point in points]), parts={"points": points})


def beyond(point: Mapping[str, float]) -> float:
    """The seconds of a run that a bare build does not take."""
    return point["run"] - point["dbt build"]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through some points, by least squares."""
    return linear_regression([x for x, _ in points], [y for _, y in points]).slope


def lean(trial: Trial) -> Iterator[Found]:
    """A bare build, then a run, with the orchestrator's lean form, if it has one."""
    rig, own = trial.rig, trial.rig.settings["INTEGRATION"]
    if FORM not in forms(trial.name):
        yield from (Found(row.id, verdict="Switchyard has no lean form for it") for row in (LEAN, LEAN_RATIO))
        return

    def restore() -> None:
        rig.invoke("up", "--orch", trial.name, "--integration", own)
        trial.run()  # as for the other scenarios

    with afterwards(restore):
        rig.invoke("up", "--orch", trial.name, "--integration", FORM)
        orchestrated(rig, trial.name)  # the first one after a start does not count
        bare(rig, trial.name, "parse")  # in Docker, the earlier parse was deleted with the container
        build = bare(rig, trial.name).seconds
        found = orchestrated(rig, trial.name)
    yield Found(LEAN.id, found.seconds, parts={"phases": found.phases})
    yield Found(LEAN_RATIO.id, found.seconds / build, parts={"run": found.seconds, "dbt build": build})


def plain(trial: Trial) -> Iterator[Found]:
    """A run without the warm dbt, if the orchestrator uses it."""
    if trial.ran is None:
        raise StackError("The run before could not be measured.")
    found, build = trial.ran
    if trial.rig.execute(trial.name, ["python", "-c", NO_WARM_DBT]).strip():
        with afterwards(lambda: trial.rig.execute(trial.name, ["python", "-c", WARM_DBT])):
            found = orchestrated(trial.rig, trial.name)
    yield Found(PLAIN.id, found.seconds, parts={"phases": found.phases})
    yield Found(PLAIN_RATIO.id, found.seconds / build, parts={"run": found.seconds, "dbt build": build})


def together(spans: list[Span]) -> int:
    """The largest number of spans at one moment."""
    steps = sorted([(span.began, 1) for span in spans] + [(span.ended, -1) for span in spans])
    return max(accumulate(step for _, step in steps), default=0)


def sentence(report: Report) -> str:
    """The section's first sentence."""
    if not report.measured(PLAIN_RATIO.id):
        return f"Divided by a bare dbt build of the same project, a run is {report.ranking(RATIO)}."
    plain = {name: report.summary(PLAIN_RATIO.id, name).values for name in report.titles}
    warm = [name for name, values in plain.items() if values and values != report.summary(RATIO.id, name).values]
    added = f"; with the warm dbt, which Switchyard adds, {report.ranking(RATIO, warm)}" if warm else ""
    return f"Divided by a bare dbt build of the same project, a run is {report.ranking(PLAIN_RATIO)}{added}."


def pictures(report: Report) -> list[dict[str, Any]]:
    """The phases of a run, and its nodes over time, of each orchestrator's median run."""
    typical = {title: report.typical(RUN, name) for name, title in report.titles.items()}
    phases = {title: found["parts"]["phases"] for title, found in typical.items() if found}
    nodes = {title: report.beside(TOGETHER, name, typical[title]) for name, title in report.titles.items()}
    nodes = {title: found["parts"]["nodes"] for title, found in nodes.items() if found and found["parts"]["nodes"]}
    made: list[dict[str, Any]] = []
    if phases:
        axis = "seconds since invoke run was typed"
        made.append(
            {"kind": "bars", "title": "Where the time of a run goes", "unit": "s", "axis": axis, "parts": list(PHASES), "runs": phases}
        )
    if nodes:
        made.append({"kind": "gantt", "title": "One run: when PostgreSQL worked for each node", "runs": nodes})
    if lines := {title: found for name, title in report.titles.items() if (found := curve(report, name))}:
        title = "What each further node costs"
        made.append({"kind": "lines", "title": title, "x": "models more", "y": "seconds beyond a bare dbt build", "lines": lines})
    return made


def curve(report: Report, name: str) -> list[tuple[float, float]]:
    """An orchestrator's seconds beyond a bare build, by the number of additional models: the median of all rounds."""
    found: dict[float, list[float]] = {}
    for point in (point for one in report.found(SLOPE, name) for point in one["parts"].get("points", ())):
        found.setdefault(point["models"], []).append(beyond(point))
    return [(models, median(seconds)) for models, seconds in sorted(found.items())]


SECTION = Section(
    "speed",
    "Speed",
    (
        Scenario("run and bare dbt build", run, (RUN, RATIO, TOGETHER), 40),
        Scenario("run with plain dbt", plain, (PLAIN, PLAIN_RATIO), 20, "default"),
        Scenario("run of the lean form", lean, (LEAN, LEAN_RATIO), 30, "default", once=True),
        Scenario("10, 100 and 500 models more", nodes, (SLOPE,), 500, "full"),
    ),
    sentence,
    pictures,
)
