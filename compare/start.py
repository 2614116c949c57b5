"""To the first green run: its duration from nothing, and what the orchestrator then consists of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from bench import images
from bench import start as starts
from bench.run import bare
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import LOG_STATEMENTS, RUN_TIMEOUT_S, Trial
from switchyard.errors import StackError
from switchyard.orchestrators import Orchestrator
from switchyard.runtimes.docker import argv
from switchyard.runtimes.native import plan

FIRST = Row(
    "first_green",
    "To the first green run",
    "The start and the first `invoke run` together, with images or environments already built and an empty database.",
    "s",
    None,
)
# Airflow's and Dagster's load Switchyard's warm dbt, so a best value would not be the product's own merit.
START = Row("start", "Start", "From the command to all services healthy; PostgreSQL is up, its databases are empty.", "s", None)
RUN = Row("first_run", "First run", "The first `invoke run` after that, from typing it to the prompt; it has to succeed.", "s", None)
SERVICES = Row("services", "Services", "Long-running processes or containers, without PostgreSQL.", better=None)
SIZE = Row(
    "size",
    "Size on disk",
    "The image, including its base image; without Docker the environments, including dbt's.",
    "MB",
    None,
)
# This code is Switchyard's: the reader judges whether more lines are worse.
CODE = Row(
    "code_lines",
    "Lines of the integration",
    "Non-empty lines in docker/<name>/, without the locked packages and the files for `invoke eject`. They are Switchyard's.",
    better=None,
)
COMPOSE = Row(
    "compose_lines",
    "Lines of the compose file",
    "Non-empty lines in compose/docker-compose-<name>.yaml. They are Switchyard's.",
    better=None,
)
SETTINGS = Row(
    "settings",
    "Settings of its services",
    "Different variables in the `environment` of its services in that file. To fill in: variables in `.env` that it needs to start, and"
    " that have neither a default nor a generated secret.",
    better=None,
)
NEEDED = re.compile(r"\$\{(\w+):\?")  # a variable in the compose file that needs a value


def first(trial: Trial) -> Iterator[Found]:
    """Start from nothing, and run once."""
    rig = trial.rig
    rig.driver.down(lambda _: None)  # otherwise a run that the orchestrator still considers in progress would be in the way
    start = starts.first(rig, trial.name)
    yield Found(START.id, start)
    rig.superuser(LOG_STATEMENTS)
    for args in trial.subject.before:
        bare(rig, trial.name, *args)
    run = trial.run()
    if run.code and run.seconds >= RUN_TIMEOUT_S:
        raise StackError(f"The project's first run had not ended after {RUN_TIMEOUT_S / 60:.0f} minutes, and was cancelled.")
    if run.code:
        raise StackError(f"The project's first run ended with exit code {run.code}.", "\n".join(run.text.splitlines()[-15:]))
    trial.green = frozenset(trial.spans(run.began, run.ended))
    trial.first = run.seconds
    yield Found(RUN.id, run.seconds)
    yield Found(FIRST.id, start + run.seconds, parts={"start": start, "run": run.seconds})


def counted(trial: Trial) -> Iterator[Found]:
    """Count everything that can be counted without running anything."""
    rig, orchestrator = trial.rig, trial.rig.orchestrators[trial.name]
    yield Found(SERVICES.id, len(orchestrator.services))
    if rig.runtime == "docker":
        size = images.size(rig, argv.image_name(rig.settings, trial.name))
    else:
        size = folder_size(plan.Folders(rig.folder, trial.name).installed)
    yield Found(SIZE.id, size / 1e6)
    files = code(rig.folder, trial.name)
    yield Found(CODE.id, sum(map(lines, files)), parts={path.relative_to(rig.folder).as_posix(): lines(path) for path in files})
    yield Found(COMPOSE.id, lines(orchestrator.file))
    missing = to_fill_in(orchestrator.file.read_text(encoding="utf-8"), dotenv_values(rig.folder / ".env.example", interpolate=False))
    names = sorted(configured(orchestrator, "docker"))
    yield Found(SETTINGS.id, len(names), f"{len(missing)} to fill in", not missing, {"names": names, "to fill in": missing})


def to_fill_in(compose: str, example: Mapping[str, str | None]) -> list[str]:
    """The variables that a compose file needs, and that have neither a default nor a generated secret at the first start."""
    return sorted(name for name in set(NEEDED.findall(compose)) if not example.get(name))


def configured(orchestrator: Orchestrator, runtime: str) -> dict[str, str]:
    """The environment that its compose file sets for the services; passwords are in it as names of variables."""
    services = yaml.safe_load(orchestrator.file.read_text(encoding="utf-8"))["services"]
    found = {key: str(value) for body in services.values() for key, value in (body.get("environment") or {}).items()}
    if runtime == "native":
        found |= {key: str(value) for process in orchestrator.native_block.processes for key, value in process.environment.items()}
    return found


def code(folder: Path, name: str) -> list[Path]:
    """The files of an orchestrator's integration in a checkout."""
    return sorted(path for path in (folder / "docker" / name).rglob("*") if is_code(path))


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder; links do not count."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def is_code(path: Path) -> bool:
    """Whether a person wrote the file, and it is used here; `helm` is for `invoke eject`."""
    return path.is_file() and not path.name.startswith("requirements") and not {"__pycache__", "helm"}.intersection(path.parts)


def lines(path: Path) -> int:
    """The number of non-empty lines in a text file."""
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return f"From an empty database, the first green run came after {report.ranking(FIRST)}."


def integrations(report: Report) -> dict[str, Any]:
    """The files of each integration."""
    return {
        "title": "The code of the integrations",
        "lead": "All files that a person wrote for each orchestrator, and its compose file; without rundbt/, which all three share.",
        "columns": [
            {"title": facts["title"], "files": [{"path": path, "text": text} for path, text in facts.get("files", {}).items()]}
            for facts in report.content["orchestrators"].values()
        ],
    }


UP = Scenario("start and first run", first, (FIRST, START, RUN), 46)  # every other scenario needs it first
SIZES = Scenario("size", counted, (SERVICES, SIZE, CODE, COMPOSE, SETTINGS), 1)
SECTION = Section("start", "To the first green run", (UP, SIZES), sentence, code=integrations)
