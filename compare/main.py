"""The comparison itself: runs every scenario on each orchestrator, and writes the figures as JSON and as a page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import yaml
from dotenv import dotenv_values

from bench import harness
from bench.rig import CHECKOUT_HASH, RUNTIMES, Rig, possible, rig, where
from compare import alerting, backfill, cost, failures, loop, scaling, scheduling, security, seeing, speed, start
from compare.model import DEPTHS, Found, Scenario
from compare.report import LEAST, SCHEMA, Report
from compare.trial import Subject, Trial, reason
from rundbt import jobs
from switchyard import ROOT, caller, console, environments, orchestrators, python_packages, settings
from switchyard import project as projects
from switchyard.errors import BadUsage, StackError
from switchyard.fingerprints import base_images
from switchyard.placeholders import SETTING
from switchyard.project import Project
from switchyard.runner import Runner
from switchyard.runtimes.docker import argv
from switchyard.runtimes.runtime import POSTGRES

SECTIONS = (
    start.SECTION,
    speed.SECTION,
    loop.SECTION,
    failures.SECTION,
    scheduling.SECTION,
    backfill.SECTION,
    seeing.SECTION,
    cost.SECTION,
    security.SECTION,
    alerting.SECTION,
    scaling.SECTION,
)
NAME = f"switchyard-compare-{CHECKOUT_HASH}"
ROUNDS = {"quick": 1, "default": LEAST, "full": LEAST}
# The whole project, with its tests, is compared, whatever its own jobs select.
JOBS = "jobs:\n  daily:\n    dbt: build\n"
# These override the user's settings, so that the rows measure what they describe, and no schedule starts a run.
DEFAULTS = {"INTEGRATION": "vendor", "DAGSTER_TABLE_METADATA": "false", "SCHEDULES_ENABLED": "false"}
# Sections before those that edit the project, after which a product would load it again in a measured run. Memory comes before sections
# that restart services.
EARLY = ("start", "cost", "speed")
# Names for people that differ from dbt's resource type, of one and of several.
KINDS = {"test": ("data test", "data tests"), "unit_test": ("unit test", "unit tests"), "analysis": ("analysis", "analyses")}
QUERY_COMMENT = "query-comment"  # with it, a project replaces dbt's comment before each statement
BUILD_S = 40  # an estimate of the time to build one orchestrator's image or environment


@dataclass(frozen=True)
class Step:
    """One scenario on one orchestrator in one round."""

    number: int
    name: str
    scenario: Scenario


def main(only: str, orch: str, rounds: int | None, runtime: str, out: str | None, depth: str) -> None:
    """Compare the orchestrators on the project in ``.env``, and write the figures and the page.

    Args:
        only: ids of `SECTIONS`, separated by commas; empty for all.
        orch: orchestrators, separated by commas; empty for all.
        rounds: how often everything is measured; None for the number in `ROUNDS` for ``depth``, and once for what takes long.
        runtime: ``docker`` or ``native``; empty for RUNTIME in ``.env``.
        out: the folder to write to; None for one in ``reports/``.
        depth: how much is measured, one of `DEPTHS`.

    Raises:
        BadUsage: there is no such section, orchestrator or runtime, the folder has a report, or the warehouse is not the stack's own.
        BadConfiguration: the project cannot be run.
        BuildFailed: the packages for the page cannot be installed.
    """
    picked = harness.picked(only, [section.id for section in SECTIONS], "section", "invoke compare --only")
    names = harness.picked(orch, orchestrators.load_all(ROOT), "orchestrator", "invoke compare --orch")
    asked = harness.picked(runtime, RUNTIMES, "runtime", "invoke compare --runtime")
    if len(asked) > 1:
        raise BadUsage("A comparison is made on one runtime.", "", f"invoke compare --runtime {asked[0]}")
    own, _ = settings.load(ROOT, os.environ, write=False)
    project = projects.load(own, os.environ)
    if not project.shared:
        raise BadUsage(
            f"The data of {project.name} goes to its own warehouse, {project.connection}, and a comparison would build there.",
            "A comparison fills, breaks and deletes tables, so it uses only its own PostgreSQL.",
            f"invoke use {project.folder} --warehouse shared, then: invoke compare",
        )
    now = datetime.now(timezone.utc)
    folder = Path(out) if out else ROOT / "reports" / f"{now:%Y%m%dT%H%M%SZ}"
    if (folder / "report.json").exists():
        raise BadUsage(f"{folder} has a report already.", "Figures are never overwritten.", "invoke compare --out OTHER_FOLDER")
    kind = asked[0] if asked else own["RUNTIME"] if own["RUNTIME"] in RUNTIMES else possible()[0]
    console.note("This uses its own stack and a copy of the project, and removes them afterwards; yours are not touched.")
    console.note("Other programs on this machine make the spread wider.")
    sections = [section for section in SECTIONS if not picked or section.id in picked]
    depths = DEPTHS[: DEPTHS.index(depth) + 1]
    scenarios = {section.id: found for section in sections if (found := [one for one in section.scenarios if one.depth in depths])}
    if not scenarios:
        raise BadUsage(f"Nothing of {only} is measured at this depth.", "", f"invoke compare --full --only {only}")
    environment()
    folder.mkdir(parents=True, exist_ok=True)
    interrupted = None
    with rig(kind, names, NAME, lambda copy: prepare(copy, own, project)) as made:
        report = opened(made, project, now, rounds or ROUNDS[depth], depth)
        for section in sections:
            report.declare(section, scenarios.get(section.id, ()))
        try:
            subject = Subject(made, folder, environment(), first_steps(project))
            in_turn = sorted(scenarios, key=lambda id: EARLY.index(id) if id in EARLY else len(EARLY))
            measure(subject, report, folder / "report.json", [one for id in in_turn for one in scenarios[id]], rounds is not None)
            report.content["complete"] = True
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
        report.content["seconds"] = round((datetime.now(timezone.utc) - now).total_seconds())
        report.write(folder / "report.json")
        page(report, folder, folder)
    if interrupted:
        raise KeyboardInterrupt(f"The figures so far: {folder / 'report.html'}")
    console.ok(f"Written to {folder / 'report.html'}, with all figures in report.json in the same folder")


def again(path: str, out: str | None) -> None:
    """Make the page from saved figures.

    Args:
        path: the JSON file.
        out: the folder of the page; None for that of the JSON.

    Raises:
        BadUsage: it is not a report's JSON.
        BuildFailed: the packages for the page cannot be installed.
    """
    report = Report.read(Path(path))
    folder = Path(out) if out else Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    page(report, folder, Path(path).parent)
    console.ok(f"Written to {folder / 'report.html'}")


def prepare(copy: Path, own: settings.Settings, project: Project) -> dict[str, str]:
    """Put the project and the user's settings into a copy of the checkout; return its settings."""
    for path in (own.root / "certs").glob("*"):
        if path.is_file():
            shutil.copy(path, copy / "certs" / path.name)
    example = dotenv_values(copy / ".env.example", interpolate=False)
    # It has its own ports and secrets.
    kept = {key: own[key] for key, value in example.items() if not key.endswith("_PORT") and not (value or "").startswith("<")}
    copied = {"DBT_PROJECT": projects.SHOP} if project.shop else projects.duplicate(project, copy / ".stack" / "compared")
    Path(copy, copied["DBT_PROJECT"], jobs.FILE).write_text(JOBS, encoding="utf-8")
    if QUERY_COMMENT in project.content:  # it would hide a statement's node
        content = {key: value for key, value in project.content.items() if key != QUERY_COMMENT}
        file = Path(copy, copied["DBT_PROJECT"], projects.FILE)
        file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    # The compared images are built from the checkout, even if a release is in use.
    return {**kept, **DEFAULTS, **copied, "RELEASE_FILE": ""}


def opened(rig: Rig, project: Project, now: datetime, rounds: int, depth: str) -> Report:
    """A report without figures."""
    return Report(
        {
            "schema": SCHEMA,
            "time": now.isoformat(timespec="seconds"),
            "seconds": 0,
            "complete": False,
            **where(rig.runtime),
            "runtime": rig.runtime,
            "limits": limits(rig),
            "rounds": rounds,
            "depth": depth,
            "project": {"name": project.name, "counts": "", "threads": threads(project), "query_comment": QUERY_COMMENT in project.content},
            "versions": {"PostgreSQL": "", "dbt-core": ""},
            "base_images": list(base_images(rig.settings).values()) if rig.runtime == "docker" else [],
            "orchestrators": {
                name: {
                    "title": one.title,
                    "versions": python_packages.versions(rig.folder, name),
                    "settings": start.configured(one, rig.runtime),
                    "files": {
                        path.relative_to(rig.folder).as_posix(): path.read_text(encoding="utf-8")
                        for path in (*start.code(rig.folder, name), one.file)
                    },
                }
                for name, one in rig.orchestrators.items()
                if not rig.only or name in rig.only
            },
            "rows": {},
        }
    )


def limits(rig: Rig) -> str:
    """The limits of memory and CPU that apply to the services, from the compose files."""
    if rig.runtime != "docker":
        return "none: without Docker"
    files = [*(rig.orchestrators[name].file for name in rig.names()), argv.postgres_file(rig.settings)]
    bodies = {name: body for file in files for name, body in scaling.services(file, "").items()}
    found = []
    for what, key in (("memory", "mem_limit"), ("CPU", "cpus")):
        set_ = [
            f"{name} {SETTING.sub(lambda match: rig.settings[match[2]] or match[4], str(body[key]))}"
            for name, body in bodies.items()
            if key in body
        ]
        found.append(f"{what}: {', '.join(set_) or 'none'}")
    return "; ".join(found)


def threads(project: Project) -> str:
    """The number of dbt threads in its profile: the number itself, or the value or default of the variable for it."""
    threads = str(project.output.get("threads", 1))
    match = re.search(r"env_var\(\s*['\"](\w+)['\"]\s*,\s*['\"]?(\d+)", threads)
    return project.variables.get(match[1], match[2]) if match else threads if threads.isdigit() else "its profile's number of"


def first_steps(project: Project) -> Sequence[Sequence[str]]:
    """The dbt commands that the project's first job runs before its last one: without them, there may be nothing to build from."""
    known = jobs.read(project.folder)
    name = jobs.first(known)
    return known[name].before if name else ()


def measure(subject: Subject, report: Report, path: Path, scenarios: Sequence[Scenario], repeated: bool) -> None:
    """Run the scenarios on each orchestrator, and save each measurement at once; ``repeated`` is as for `planned`."""
    rig = subject.rig
    names = rig.names()
    broken: dict[str, str] = {}  # why there is no environment, or image
    for name, orchestrator in rig.orchestrators.items():
        if name in report.titles and name not in names:
            refuse(report, name, 0, scenarios, rig.driver.unsupported(orchestrator))
    needed = scenarios if start.UP in scenarios else [start.UP, *scenarios]  # all others need it first
    if not repeated and all(one.single for one in scenarios):
        report.content["rounds"] = 1  # further rounds would only repeat the start
    steps = planned(names, report.content["rounds"], needed, repeated)
    expected = BUILD_S * len(names) + sum(step.scenario.seconds for step in steps)
    began, done = time.monotonic(), 0.0
    with console.Waiting("compare") as waiting:
        for name in names:
            waiting.detail(f"{left(began, done, expected)}; building {report.titles[name]}")
            try:
                rig.driver.images.build([POSTGRES, name], on_line=lambda _: None)
            except StackError as error:
                broken[name] = reason(error)
            expected -= BUILD_S
        began = time.monotonic()  # a build that finds everything done does not predict the pace of the rest
        trial = Trial(subject, "")
        for number, step in enumerate(steps, 1):
            title = report.titles[step.name]
            # A narrow terminal cuts the end off.
            waiting.detail(f"{left(began, done, expected)}; step {number} of {len(steps)}: {title}, {step.scenario.title}")
            if step.scenario is start.UP:
                trial = Trial(subject, step.name, down=broken.get(step.name, ""))
            attempt(report, trial, step)
            done += step.scenario.seconds
            if not trial.down and (subject.graphs or number == len(steps)):
                with contextlib.suppress(StackError):
                    facts(report, trial)
            report.write(path)


def planned(names: Sequence[str], rounds: int, scenarios: Sequence[Scenario], repeated: bool) -> list[Step]:
    """The steps, in order: each round starts with another orchestrator.

    Only the first round has the scenarios that run once, unless all are ``repeated``.
    """
    return [
        Step(number, name, scenario)
        for number in range(rounds)
        for name in turned(names, number)
        for scenario in scenarios
        if number == 0 or repeated or not scenario.single
    ]


def attempt(report: Report, trial: Trial, step: Step) -> None:
    """Run one scenario, and add the measurement of each of its rows, or why there is none."""
    if trial.down:
        refuse(report, step.name, step.number, [step.scenario], trial.down)
        return
    known = set()
    try:
        for found in step.scenario.measure(trial):
            report.add(found, step.name, step.number)
            known.add(found.row)
    except Exception as error:  # of any kind: the other figures are still useful
        why = reason(error)
        if step.scenario is start.UP:
            trial.down = why
        refuse(report, step.name, step.number, [step.scenario], why, known)


def refuse(report: Report, name: str, number: int, scenarios: Sequence[Scenario], why: str, known: Set[str] = frozenset()) -> None:
    """Add why nothing was measured to each row of the scenarios, except the ``known`` ones."""
    for row in (row for scenario in scenarios for row in scenario.rows if row.id not in known):
        report.add(Found(row.id, why=why), name, number)


def turned(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of the round ``number``: each one is first in turn."""
    first = number % (len(names) or 1)  # there may be none that can run here
    return [*names[first:], *names[:first]]


def left(began: float, done: float, expected: float) -> str:
    """How long the rest will take, at the pace so far."""
    pace = (time.monotonic() - began) / done if done else 1.0
    seconds = pace * (expected - done)
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def facts(report: Report, trial: Trial) -> None:
    """Add, once, the facts that are known only after the project was parsed and the server is up."""
    if report.content["project"]["counts"]:
        return
    graph = trial.graph
    report.content["project"]["counts"] = counted(node["resource_type"] for node in graph.nodes.values())
    report.content["versions"] = {"PostgreSQL": trial.rig.sql("select current_setting('server_version')"), "dbt-core": graph.version}


def counted(kinds: Iterable[str]) -> str:
    """How many nodes there are of each of dbt's resource types, in words."""
    counts = sorted(Counter(kinds).items())
    return ", ".join(f"{count} {KINDS.get(kind, (kind, f'{kind}s'))[count > 1]}" for kind, count in counts)


def environment() -> Path:
    """Return the Python of the environment that makes the page; it is installed at first use.

    Raises:
        BuildFailed: it cannot be installed.
    """
    folder = ROOT / ".stack" / "compare"
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    runner = python_packages.trusting(Runner({}), ROOT)
    lock, what = Path(__file__).with_name("requirements.txt"), "The environment for the page"
    environments.virtualenv(lock, folder, what, runner, cache=True, on_line=console.note, again="invoke compare")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def page(report: Report, folder: Path, pictures: Path) -> None:
    """Write ``report.html`` into ``folder``, with the pictures from the folder ``pictures`` embedded.

    Raises:
        StackError: it could not be made.
    """
    env = {**caller.inherited(os.environ), "MPLCONFIGDIR": str(ROOT / ".stack" / "compare" / "matplotlib")}
    command = [str(environment()), "-I", "-X", "utf8", str(Path(__file__).with_name("page.py")), str(folder / "report.html"), str(pictures)]
    done = subprocess.run(command, env=env, input=json.dumps(report.view(SECTIONS)), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise StackError("The page could not be made.", done.stderr[-2000:], f"invoke compare --report {folder / 'report.json'}")
