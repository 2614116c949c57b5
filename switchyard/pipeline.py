"""Trigger a job in the active orchestrator, follow its run, and read the result."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from colorama import Fore, Style

from rundbt import api, jobs, project_files, results
from switchyard import command_lock, console, diagnosis, faults
from switchyard import project as projects
from switchyard.errors import ApiUnusable, BadConfiguration, BadUsage, NothingActive, RunFailed, RunInProgress
from switchyard.runner import Result
from switchyard.runtimes.runtime import JobRuntime
from switchyard.settings import Settings

CANCEL = "   (invoke run --cancel cancels all runs)"
SECOND_INTERRUPT_S = 5  # seconds in which a second Ctrl-C cancels the run
SERVICES_TIMEOUT_S = 180  # seconds that a run waits for services that are starting
LINE_LIMIT = 200  # characters of a line of run_job.py in a message
RERUN = "--failed"  # instead of a job: the nodes that failed or were skipped in the newest run

# The events of run_job.py, and the type of each field that they need.
_EVENTS: dict[str, dict[str, Any]] = {
    "started": {"job": str, "run_id": str, "url": str},
    "progress": {"message": str},
    "node": {
        "unique_id": str,
        "name": str,
        "kind": str,
        "status": str,
        "seconds": int | float,
        "rows": int | None,
        "message": str | None,
    },
    "finished": {"state": str, "seconds": int | float, "message": str | None},
    "active": {"run_id": str, "job": str, "url": str, "state": str},
}
_CODES = {"success": api.SUCCESS, "failure": api.FAILED, "canceled": api.FAILED}  # the exit code after each state of a run
_COLOURS = {"success": Fore.GREEN, "pass": Fore.GREEN, "warn": Fore.YELLOW, "skipped": Style.DIM}


@dataclass
class Run:
    """One run of a job, as the orchestrator reports it.

    Attributes:
        job: the job's name; for a re-run, that of the run that it repeats, once it has started.
        url: the run's page; empty if there was nothing to run.
        state: success, failure, canceled; empty until it is finished.
        seconds: how long the orchestrator took from start to end.
        message: why it failed, where no node shows it.
        nodes: one record per dbt node, see `rundbt.results.node_record`.
    """

    job: str
    url: str = ""
    state: str = ""
    seconds: float = 0.0
    message: str | None = None
    nodes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The nodes that made the run fail."""
        return results.failures(self.nodes)


@dataclass(frozen=True)
class ActiveRun:
    """A run in progress, as the orchestrator reports it.

    Attributes:
        run_id: the orchestrator's own id of the run.
        job: the job's name.
        url: the run's page.
        state: the orchestrator's own name for it, such as running or queued.
        worker: the host name of the worker that runs dbt for it; empty if there is none, or if it is not known.
        since: the time at which it began, in ISO 8601; empty if it has not begun.
    """

    run_id: str
    job: str
    url: str
    state: str
    worker: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"{self.job}, {self.state}: {self.url}"


class Left(KeyboardInterrupt):
    """A command that follows a run was interrupted; the run continues, as the text explains."""


def _event(line: str) -> dict[str, Any]:
    """The event that `run_job.py` printed as ``line``.

    Raises:
        ApiUnusable: it is not one of the protocol, or a field is missing or has a wrong type.
    """
    try:
        event: dict[str, Any] = json.loads(line)
        fields = _EVENTS[event["event"]]
    except (ValueError, TypeError, KeyError):
        wrong = ["event"]
    else:
        wrong = [name for name, kind in fields.items() if not isinstance(event.get(name, ...), kind)]
    if wrong:
        why = f"{line[:LINE_LIMIT]}\nmissing or wrong: {', '.join(wrong)}"
        raise ApiUnusable("run_job.py printed a line that is not an event of its protocol.", why, "Correct it: docs/architecture.md")
    return event


def active_runs(runtime: JobRuntime) -> list[ActiveRun]:
    """The runs that the active orchestrator executes or has queued; none where no orchestrator is active.

    Raises:
        ApiUnusable: the orchestrator gave no usable answer.
    """
    return _ask_runs(runtime, "--active")


def cancel_runs(runtime: JobRuntime) -> list[ActiveRun]:
    """Cancel every run in progress through the orchestrator, wait until each has ended, and return them.

    Raises:
        ApiUnusable: the orchestrator gave no usable answer, or a run did not end.
    """
    return _ask_runs(runtime, "--cancel")


def _ask_runs(runtime: JobRuntime, flag: str) -> list[ActiveRun]:
    active = runtime.active()
    if active is None:
        return []
    found: list[ActiveRun] = []

    def on_line(line: str) -> None:
        event = _event(line)
        if event["event"] == "active":
            worker, since = event.get("worker") or "", event.get("since") or ""
            found.append(ActiveRun(event["run_id"], event["job"], event["url"], event["state"], worker, since))

    done = runtime.trigger(runtime.orchestrators[active], [flag], on_line)
    if done.code:
        verb = "cancel" if flag == "--cancel" else "list"
        raise ApiUnusable(f"Could not {verb} {runtime.orchestrators[active].title}'s runs.", done.stderr, "invoke status")
    return [] if runtime.runner.dry else found


def known_job(settings: Settings, name: str | None) -> str:
    """The job called ``name``; without a name, ``daily``, or else the first of the project's jobs.

    Raises:
        BadUsage: there is none.
        BadConfiguration: the project's ``orchestration.yml`` has a mistake.
    """
    try:
        known = jobs.read(projects.folder(settings))
    except jobs.JobsError as error:
        raise BadConfiguration(f"{jobs.FILE} of the dbt project has a mistake.", str(error), "Correct it, then try again.") from None
    first = jobs.first(known)
    if name is None and first:
        return first
    if name not in known:
        listed = f"The jobs are {', '.join(known)}." if known else f"{jobs.FILE} has none."
        raise BadUsage(f"There is no job called {name!r}.", listed, f"invoke run --job {first}")
    return name


def follow(job: str, stream: Callable[[Callable[[str], None]], Result], show: Callable[[dict[str, Any]], None]) -> Run:
    """Read the run protocol until the run is over.

    Args:
        job: the job's name, or `RERUN`.
        stream: runs the trigger, and passes each line that it prints to the given function.
        show: called with each event as it comes.

    Raises:
        ApiUnusable: the orchestrator gave no usable answer.
        Left: the command was interrupted after the run had begun.
    """
    run = Run("The re-run" if job == RERUN else job)

    def on_line(line: str) -> None:
        event = _event(line)
        kind = event["event"]
        if kind == "started":
            run.job, run.url = event["job"], event["url"]
        elif kind == "node":
            run.nodes.append({name: value for name, value in event.items() if name != "event"})
        elif kind == "finished":
            run.state, run.seconds, run.message = event["state"], event["seconds"], event["message"]
        show(event)
        if kind == "started":
            faults.point("triggered")

    try:
        done = stream(on_line)
    except KeyboardInterrupt:
        if run.url and not run.state:
            raise Left(f"The run continues: {run.url}\n  next: invoke run --cancel   (to end it)") from None
        if not run.url:  # in Docker, the trigger runs in a container, and may have requested the run already
            raise KeyboardInterrupt("If the run starts anyway, cancel it: invoke run --cancel") from None
        raise
    if _CODES.get(run.state) != done.code:
        why = (
            f"run_job.py reported the state {run.state!r} and ended with exit code {done.code}.\n{done.stderr}"
            if run.state
            else done.stderr
        )
        raise ApiUnusable("The orchestrator gave no usable answer.", why or f"exit code {done.code}", "invoke status")
    return run


def run_options(settings: Settings, job: str, select: str | None, variables: str | None, full_refresh: bool) -> jobs.Options:
    """The options of a run of ``job``.

    Args:
        settings: the checkout's settings, with the project.
        job: a job's name.
        select: nodes, as for dbt's ``--select``.
        variables: a mapping in YAML, as for dbt's ``--vars``.
        full_refresh: as for dbt's flag.

    Raises:
        BadUsage: the job does not accept them.
    """
    try:
        options = jobs.Options(select or "", jobs.plain(yaml.safe_load(variables)) if variables else {}, full_refresh)
        if options:
            jobs.read(projects.folder(settings))[job].asked(options)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise BadUsage(f"--vars {variables!r} cannot be read.", str(error), "invoke run --vars '{day: 2026-01-01}'") from None
    except jobs.JobsError as error:
        raise BadUsage(f"The job {job} does not accept these options.", str(error), "invoke run --help") from None
    return options


def run(runtime: JobRuntime, job: str, options: jobs.Options | None, begun: Callable[[], None]) -> None:
    """Trigger ``job`` in the active orchestrator and follow it to its end.

    Args:
        runtime: what the orchestrator runs on.
        job: a job's name, or `RERUN`.
        options: for the job's run.
        begun: called when the orchestrator has accepted the run.

    Raises:
        NothingActive: no orchestrator is up.
        RunInProgress: `RERUN` would repeat the last run, which is still in progress.
        RunFailed: the run did not succeed.
        ApiUnusable: the orchestrator gave no usable answer.
    """
    active = runtime.active()
    if active is None:
        raise NothingActive("No orchestrator is active, so nothing can run the pipeline.", "", "invoke up")
    orchestrator = runtime.orchestrators[active]
    _wait_for_start(runtime)
    console.say(f"{'What failed last' if job == RERUN else job} on {orchestrator.title}")
    if job == RERUN and (runs := active_runs(runtime)):
        raise RunInProgress("The last run has not ended yet.", "\n".join(map(str, runs)), "Wait until it ends, then: invoke run --failed")
    words = [job, json.dumps(asdict(options))] if options else [job]

    def show(event: dict[str, Any]) -> None:
        show_event(event)
        if event["event"] == "started":
            begun()

    if runtime.runner.dry:
        runtime.trigger(orchestrator, words, console.say)
        return
    try:
        with command_lock.following(runtime.settings.root):
            found = follow(job, lambda on_line: runtime.trigger(orchestrator, words, on_line), show)
    except Left as left:
        if sys.stdin.isatty():
            try:
                console.say(f"{left}\nCtrl-C again within {SECOND_INTERRUPT_S} s cancels it.")
                time.sleep(SECOND_INTERRUPT_S)
            except KeyboardInterrupt:
                cancel(runtime)
                raise KeyboardInterrupt from None
        raise
    conclude(found, orchestrator.title, projects.folder(runtime.settings))


def _wait_for_start(runtime: JobRuntime) -> None:
    """Wait for services that are still starting, as after a reboot or a timeout of `up`: without them, `trigger` would fail."""
    if runtime.runner.dry or not (waited_for := runtime.starting()):
        return
    deadline = time.monotonic() + SERVICES_TIMEOUT_S
    with console.Waiting("wait for", "the start of the services") as waiting:
        while waited_for and time.monotonic() < deadline:
            waiting.detail(", ".join(waited_for))
            time.sleep(1)
            waited_for = runtime.starting()


def cancel(runtime: JobRuntime) -> None:
    """Cancel every run in progress, and show what was cancelled.

    Raises:
        NothingActive: no orchestrator is up.
        ApiUnusable: the orchestrator gave no usable answer, or a run did not end.
    """
    if runtime.active() is None:
        raise NothingActive("No orchestrator is active, so there is no run to cancel.", "", "invoke up")
    with console.Waiting("cancel", "what runs"):
        found = cancel_runs(runtime)
    for run in found:
        console.ok(f"{run.job} is cancelled: {run.url}")
    if not found:
        console.done("Nothing to cancel: no run is in progress.")


def show_event(event: dict[str, Any]) -> None:
    """Print one event of a run for a person."""
    if event["event"] == "started":
        console.note(f"  {event['url']}")
    elif event["event"] == "progress":
        console.note(f"  {event['message']}{CANCEL if event['message'].startswith('waits for ') else ''}")
    elif event["event"] == "node":
        rows = "" if event["rows"] is None or event["status"] == "pass" else f"{event['rows']} rows"
        if event["status"] == "skipped" and event["message"]:
            rows = event["message"].splitlines()[0]
        status = console.paint(f"{event['status']:<8}", _COLOURS.get(event["status"], Fore.RED))
        console.say(f"  {status} {event['kind']:<9} {event['name']:<58} {event['seconds']:>6.2f} s  {rows}".rstrip())


def conclude(run: Run, title: str, folder: Path) -> None:
    """Print how the run ended.

    Args:
        run: the run.
        title: the orchestrator's.
        folder: the dbt project's, to search for files that dbt's messages do not name.

    Raises:
        RunFailed: it did not succeed; with the name of each failed node and dbt's message.
    """
    counts = Counter(node["status"] for node in run.nodes)
    counted = ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no dbt nodes"
    if run.state == "success" and not run.url:
        console.ok(f"Nothing to run again. {run.message}")
        return
    if run.state == "success" and not run.nodes:
        console.advice(f"{run.job} on {title} did nothing in {run.seconds:.1f} s: no node of the project is selected.")
        return
    if run.state == "success":
        console.ok(f"{run.job} succeeded on {title} in {run.seconds:.1f} s: {counted}")
        return
    # A node that fails in a canceled run, such as one whose query was cut off, is not the reason.
    why = [f"{node['kind']} {node['name']}: {node['message']}" for node in run.failed if run.state != "canceled"]
    if run.message and not why:
        why = [run.message]
    what = f"{run.job} ended with {run.state} on {title} in {run.seconds:.1f} s: {counted}."
    if any(project_files.DECODE in message and project_files.NOT_UTF8 not in message for message in why):  # parse errors already have this
        why.append(project_files.not_utf8(folder))
    raise RunFailed(what, "\n".join(why), "\n".join([*diagnosis.help_for(why), run.url]))
