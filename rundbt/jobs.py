"""The jobs, with the same names in every orchestrator: those in the project's ``orchestration.yml``, or four default ones."""

from __future__ import annotations

import json
import keyword
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import yaml

from rundbt import project_files

FILE = "orchestration.yml"
COMMANDS = (("build",), ("run",), ("test",), ("seed",), ("snapshot",), ("source", "freshness"))
# Flags that each run sets itself, so a job cannot.
RESERVED = re.compile(
    r"--(project-dir|profiles-dir|profile|target|target-path|log-.*|vars|state|defer.*|no-use-colors|use-colors)(=.*)?|-t.*"
)
# Flags with which a command selects nodes.
NODES = ("--select", "-s", "--models", "--model", "-m", "--exclude")
SELECTING = (*NODES[:-1], "--selector")
REFRESHING = ("build", "run", "seed")  # commands that take --full-refresh
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# Names that Dagster refuses, besides Python's keywords (dagster 1.13, `DISALLOWED_NAMES`).
_NOT_DAGSTERS = {
    "context",
    "conf",
    "config",
    "meta",
    "arg_dict",
    "dict",
    "input_arg_dict",
    "output_arg_dict",
    "int",
    "str",
    "float",
    "bool",
    "input",
    "output",
    "type",
}
# The five fields of a cron expression: the lowest and highest number, and the words that stand for numbers from the lowest on.
_CRON = (
    (0, 59, ""),
    (0, 23, ""),
    (1, 31, ""),
    (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    (0, 7, "sun mon tue wed thu fri sat"),
)
# The words of crontab(5). The orchestrators get the five fields, so that all three schedule the same.
_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_KEYS = {"description", "dbt", "schedule", "timezone", "vars"}


class JobsError(Exception):
    """``orchestration.yml`` has mistakes; the text has a line for each one, with its line number in the file."""


@dataclass(frozen=True)
class Options:
    """What a person can set for one run of a job.

    Attributes:
        select: nodes, as for dbt's ``--select``, instead of the job's own selection; empty to keep the job's.
        vars: variables for dbt; they override the job's.
        full_refresh: whether incremental models and seeds are rebuilt from nothing, even if the job does not do so itself.
    """

    select: str = ""
    vars: dict[str, Any] = field(default_factory=dict)
    full_refresh: bool = False

    def __post_init__(self) -> None:
        """Refuse values that dbt could take for another flag.

        Raises:
            JobsError: a value is not allowed.
        """
        if not isinstance(self.select, str) or self.select.startswith("-"):
            raise JobsError(f"{self.select!r} selects no nodes; --select takes what dbt's --select does, such as 'tag:finance +orders'.")
        if not isinstance(self.vars, dict) or not all(isinstance(name, str) for name in self.vars):
            raise JobsError("vars must be a mapping of names to values, such as {day: 2026-01-01}.")
        if not isinstance(self.full_refresh, bool):
            raise JobsError("full_refresh must be true or false.")

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Options:
        """The options in ``values``; other keys are ignored."""
        return cls(**{option.name: values[option.name] for option in fields(cls) if option.name in values})

    def __bool__(self) -> bool:
        """Whether any option is set."""
        return self != Options()


@dataclass(frozen=True)
class Job:
    """One job: what dbt does, and when.

    Attributes:
        name: the name in every orchestrator and in ``invoke run --job``.
        dbt_args: the dbt command line after ``dbt``.
        cron: five-field cron expression, or None for a job that is only started by hand.
        description: one sentence for the orchestrator's page.
        timezone: the time zone of ``cron``, an IANA name.
        before: dbt commands that run first, one after the other; one that fails ends the job.
    """

    name: str
    dbt_args: tuple[str, ...]
    cron: str | None
    description: str
    timezone: str = "UTC"
    before: tuple[tuple[str, ...], ...] = ()

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Every dbt command, in order."""
        return (*self.before, self.dbt_args)

    @property
    def full_refresh(self) -> bool:
        """Whether incremental models and seeds are built from nothing."""
        return not {"--full-refresh", "-f"}.isdisjoint(self.dbt_args)

    @property
    def flags(self) -> tuple[str, ...]:
        """The words after ``dbt build``, without ``--full-refresh``."""
        return tuple(word for word in self.dbt_args[1:] if word not in ("--full-refresh", "-f"))

    @property
    def whole(self) -> bool:
        """Whether the job builds the whole project. Only such a job is shown node by node in every orchestrator."""
        return self.dbt_args[0] == "build" and self.flags[2 * (self.flags[:1] == ("--vars",)) :] == ()

    def asked(self, options: Options) -> Job:
        """The job for one run with ``options``, which apply to each of its commands.

        Raises:
            JobsError: ``full_refresh`` is set, and none of its commands takes ``--full-refresh``.
        """
        if options.full_refresh and not any(args[0] in REFRESHING for args in self.commands):
            raise JobsError(f"full_refresh: no command of the job {self.name} takes it, only dbt {', '.join(REFRESHING)}.")
        *before, last = (_asked(args, options) for args in self.commands)
        return replace(self, dbt_args=last, before=tuple(before))


def _asked(args: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """A dbt command with ``options``."""
    command = next(command for command in COMMANDS if args[: len(command)] == command)
    words = list(args[len(command) :])
    variables = dict(options.vars)
    if words[:1] == ["--vars"]:
        variables = yaml.safe_load(words[1]) | variables
        words = words[2:]
    added = ["--vars", _vars(variables)] if variables else []
    if options.full_refresh and command[0] in REFRESHING and not {"--full-refresh", "-f"} & set(words):
        added.append("--full-refresh")
    if options.select:
        added += ["--select", options.select]
        words = list(_unselected(words))
    return (*command, *added, *words)


def _unselected(words: list[str]) -> Iterator[str]:
    """The words without those that select nodes. For dbt, every word up to the next flag is a value of the flag before it."""
    selecting = False
    for word in words:
        if word.startswith("-"):
            selecting = word.partition("=")[0] in SELECTING
        if not selecting:
            yield word


def plain(variables: Any) -> Any:
    """Variables with JSON's types only: a date becomes text.

    Raises:
        ValueError: they contain themselves.
        TypeError: a name cannot be turned into text.
    """
    return json.loads(json.dumps(variables, default=str))


def _vars(variables: dict[str, Any]) -> str:
    """Variables for dbt's ``--vars``, as YAML: Airflow would take JSON for a Python dictionary."""
    return yaml.safe_dump(plain(variables), default_flow_style=True, width=1 << 20).strip()


# What runs when a person selects nodes without a job.
BUILD = Job("build", ("build",), None, "Build what is selected.")
DEFAULT = {
    job.name: job
    for job in (
        Job("daily", ("build",), "0 5 * * *", "Load the seeds, build every model and snapshot, run every test."),
        Job("smoke", ("test", "--select", "tag:smoke"), "15 * * * *", "Run the few tests that are tagged smoke."),
        Job("freshness", ("source", "freshness"), "30 */6 * * *", "Check how old the raw tables are."),
        Job("full_refresh", ("build", "--full-refresh"), None, "Rebuild everything, incremental models included, from nothing."),
    )
}


@cache
def load() -> dict[str, Job]:
    """The jobs of the project at SWITCHYARD_SOURCE_PATH, read once per process.

    Raises:
        JobsError: its file has mistakes.
    """
    return read(project_files.source_dir())


def first(known: Mapping[str, Job]) -> str:
    """The default job: ``daily``, or else the first one; empty if there are no jobs."""
    return "daily" if "daily" in known else next(iter(known), "")


def read(folder: Path) -> dict[str, Job]:
    """The jobs of the project in ``folder``, by name, in the file's order.

    Raises:
        JobsError: its file has mistakes.
    """
    file = folder / FILE
    if not file.exists():
        return DEFAULT
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobsError(f"{FILE} cannot be read: {error}") from None
    mistakes: list[str] = []
    jobs = list(_jobs(node, mistakes))
    if mistakes:
        raise JobsError("\n".join(mistakes))
    return {job.name: job for job in jobs}


def _jobs(root: yaml.Node | None, mistakes: list[str]) -> Iterator[Job]:
    def wrong(node: yaml.Node | None, what: str) -> None:
        mistakes.append(f"{FILE}:{node.start_mark.line + 1 if node else 1}: {what}")

    def mapping(node: yaml.Node | None, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            wrong(node, f"{what} must be a mapping.")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if str(key.value) in found:
                wrong(key, f"{key.value} is here twice.")
            found[str(key.value)] = key, value
        return found

    top = mapping(root, "The file")
    for word, (node, _) in top.items():
        if word != "jobs":
            wrong(node, f"there is no key {word!r}; the only one is jobs.")
    if root is not None and "jobs" not in top:
        wrong(root, "jobs is missing.")
    named = mapping(top["jobs"][1], "jobs") if "jobs" in top else {}
    if "jobs" in top and not named and not mistakes:
        wrong(top["jobs"][0], "jobs is empty.")
    for name, (key, body) in named.items():
        known = len(mistakes)
        if not _NAME.fullmatch(name):
            wrong(key, f"{name!r} is not a valid name of a job: letters, digits and _, a letter first, 100 at most.")
        elif keyword.iskeyword(name) or name in _NOT_DAGSTERS:
            wrong(key, f"{name!r} cannot be the name of a job: Dagster reserves it.")
        entry = mapping(body, f"The job {name}")
        for own, (own_key, _) in entry.items():
            if own not in _KEYS:
                wrong(own_key, f"a job has no key {own!r}; its keys are {', '.join(sorted(_KEYS))}.")
        values: dict[str, Any] = {}
        for own, (_, value) in entry.items():
            try:
                values[own] = _value(value)
            except (yaml.YAMLError, ValueError, TypeError) as error:
                wrong(value, f"{own} cannot be read: {getattr(error, 'problem', None) or error}.")
        for own in ("description", "schedule", "timezone"):
            if own in values and not isinstance(values[own], str):
                wrong(entry[own][0], f"{own} must be text.")
        commands = list(_commands(entry, values, wrong, key))
        cron, zone = values.get("schedule"), values.get("timezone", "UTC")
        cron = _WORDS.get(cron, cron) if isinstance(cron, str) else cron
        if isinstance(cron, str) and not _is_cron(cron):
            wrong(entry["schedule"][0], f"{cron!r} is not a cron expression of five fields.")
        if isinstance(zone, str) and "timezone" in entry and not _zone(zone):
            wrong(entry["timezone"][0], f"there is no time zone {zone!r}.")
        if len(mistakes) == known:
            *before, last = commands
            yield Job(name, last, cron, values.get("description", ""), zone, tuple(before))


def _commands(entry: dict[str, Any], values: dict[str, Any], wrong: Any, job: yaml.Node) -> Iterator[tuple[str, ...]]:
    """The dbt commands of one job, with its variables."""
    variables = values.get("vars")
    if variables is not None and not isinstance(variables, dict):
        wrong(entry["vars"][0], "vars must be a mapping.")
    try:
        given = ("--vars", _vars(variables)) if variables else ()
    except (ValueError, TypeError) as error:  # a mapping that contains itself, or a key that is a date
        wrong(entry["vars"][0], f"vars cannot be passed to dbt: {error}.")
        given = ()
    if "dbt" not in entry:
        wrong(job, "dbt is missing: the dbt command that the job runs, such as `build`.")
        return
    key, node = entry["dbt"]
    for line in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        try:
            words = tuple(shlex.split(line.value)) if isinstance(line, yaml.ScalarNode) else ()
        except ValueError as error:
            wrong(line, f"{line.value!r} cannot be read: {error}.")
            continue
        if words[:1] == ("dbt",):
            words = words[1:]
        if not any(words[: len(command)] == command for command in COMMANDS):
            wrong(line, f"dbt must begin with one of {', '.join(' '.join(command) for command in COMMANDS)}.")
        for word in words:
            if RESERVED.fullmatch(word):
                wrong(line, f"{word} cannot be set here" + ("; set variables under vars." if word.startswith("--vars") else "."))
        command = next((command for command in COMMANDS if words[: len(command)] == command), words)
        yield (*command, *given, *_in_one_word(words[len(command) :]))
    if isinstance(node, yaml.SequenceNode) and not node.value:
        wrong(key, "dbt has no command.")


def _in_one_word(words: tuple[str, ...]) -> Iterator[str]:
    """The words, with all values of a selecting flag joined into one word: dbt takes both forms, dagster-dbt only this one."""
    values: list[str] = []
    selecting = False
    for word in words:
        if selecting and not word.startswith("-"):
            values.append(word)
            continue
        if values:
            yield " ".join(values)
        values = []
        selecting = word in NODES
        yield word
    if values:
        yield " ".join(values)


def _is_cron(text: str) -> bool:
    """Whether it is a cron expression that all three orchestrators take: numbers, words, ``*``, lists, ranges and steps."""
    fields = text.split(" ")
    return len(fields) == len(_CRON) and all(
        _is_cron_part(part, *limits) for given, limits in zip(fields, _CRON) for part in given.split(",")
    )


def _is_cron_part(part: str, lowest: int, highest: int, words: str) -> bool:
    span, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and 0 < int(step) <= highest):
        return False
    numbers = {word: str(lowest + number) for number, word in enumerate(words.split())}
    ends = [numbers.get(end.lower(), end) for end in span.split("-")]
    if ends == ["*"]:
        return True
    return len(ends) <= 2 and all(end.isascii() and end.isdigit() and lowest <= int(end) <= highest for end in ends)


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return not available_timezones()  # Windows itself has none, so nothing can be checked; the orchestrators' environments have them
    return True


def schedules_enabled() -> bool:
    """Whether SCHEDULES_ENABLED turns the schedules on; they are off by default."""
    return os.environ.get("SCHEDULES_ENABLED", "false").strip().lower() in ("1", "true", "yes", "on")
