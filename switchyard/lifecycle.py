"""up, switch and down: the order of their steps, on either runtime."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum

from switchyard import command_lock, console, diagnosis, faults, pipeline, terminal
from switchyard.errors import AlreadyActive, ApiUnusable, BadUsage, EngineMissing, NothingActive, RunInProgress, StackError, StillStarting
from switchyard.orchestrators import Orchestrator
from switchyard.release import TAG_KEY, image_key
from switchyard.runtimes.runtime import POSTGRES, Runtime

ANSWER_TIMEOUT_S = 60  # seconds after which an orchestrator with a run in progress counts as one that does not answer
ROLLBACK_TIMEOUT_S = 300  # seconds that the old orchestrator has to become healthy again, however short --timeout was


class OnActiveRun(Enum):
    """What to do with a run in progress when its orchestrator is to be stopped."""

    REFUSE = "refuse"
    WAIT = "wait"
    FORCE = "force"


@contextmanager
def _waiting(verb: str, what: str, done: str) -> Iterator[console.Waiting]:
    """Show progress; print ``done`` and the seconds if the body succeeds."""
    with console.Waiting(verb, what) as waiting:
        yield waiting
    console.done(f"{done} after {waiting.seconds:.0f} s")


def build(runtime: Runtime, names: list[str], *, cache: bool = True) -> None:
    """Build the images, or without Docker the environments, of ``names``, one after the other."""
    for name in names:
        with _waiting("build", f"the {runtime.images.kind} for {name}", f"{runtime.images.kind.capitalize()} for {name} built") as waiting:
            runtime.images.build([name], cache=cache, on_line=waiting.detail)


def rebuild(runtime: Runtime, names: list[str], *, cache: bool) -> None:
    """Like `build`, also for what is running: natively, PostgreSQL is stopped to replace its programs, and started again.

    Raises:
        RunInProgress: a run is in progress in an environment that would be rebuilt; containers keep their image.
    """
    if not runtime.images.in_use:
        build(runtime, names, cache=cache)
        return
    if (active := runtime.active()) and {POSTGRES, active}.intersection(names):
        _settle(runtime)
    _build_in_place(runtime, names, cache=cache)


def _build_in_place(runtime: Runtime, names: list[str], *, cache: bool = True) -> None:
    """Like `build`, and start PostgreSQL again if it was up: natively, it is stopped to replace its programs."""

    def up() -> bool:
        return any(service.name == POSTGRES and service.up for service in runtime.services())

    was_up = runtime.images.in_use and POSTGRES in names and up()
    try:
        build(runtime, names, cache=cache)
    finally:
        if was_up and not up():
            _start_postgres(runtime, ROLLBACK_TIMEOUT_S)


def pull(runtime: Runtime, target: Orchestrator) -> bool:
    """Pull the missing images of a release, and unpack its project, which all checks read. Returns whether any were missing.

    Raises:
        EngineMissing: the runtime has no images.
        ImageUnavailable: there is no such image.
    """
    if not runtime.settings["RELEASE_FILE"]:
        return False
    if why := runtime.unsupported(target):
        raise EngineMissing(why, "", "invoke down, then the same command with Docker")
    if image_key(target.name) not in runtime.settings.values:
        raise BadUsage(
            f"The release has no image for {target.name}.",
            runtime.settings[TAG_KEY],
            "invoke use FOLDER, to build it here; or a release that has it",
        )
    missing = runtime.images.outdated([POSTGRES, target.name], baked=True)
    for name in missing:
        with _waiting("pull", f"the image for {name}", f"Image for {name} pulled") as waiting:
            runtime.images.build([name], on_line=waiting.detail)
    return bool(missing)


def up(
    runtime: Runtime,
    target: Orchestrator,
    *,
    baked: bool,
    timeout: int,
    release: bool = False,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Bring PostgreSQL and ``target`` up, building what is missing or out of date.

    Args:
        runtime: where.
        target: what.
        baked: whether the project in the image runs, instead of the mounted one.
        timeout: seconds for all services to become healthy.
        release: whether another release is to run, which is refused while a run is in progress.
        keep: writes what the next start reads; called after all checks and pulls, before anything is started, also if a run is in
            progress.

    Raises:
        AlreadyActive: another orchestrator is active; nothing was touched.
        RunInProgress: a run is in progress, and another release is to run.
    """
    active = runtime.active()
    if active not in (None, target.name):
        title = runtime.orchestrators[active].title
        raise AlreadyActive(
            f"{title} is active, and only one orchestrator runs at a time.",
            f"{target.title} would use the same warehouse at the same time.",
            f"invoke switch {target.name}",
        )

    if runtime.runner.dry and pull(runtime, target):  # the project, on which the rest depends, is known only after the pull
        return

    def is_left_alone() -> bool:
        if active and release:
            _settle(runtime)
            return False
        return bool(active) and _executes_a_run(runtime.as_started(), target)

    # Check again after the builds, which may take minutes: a schedule may have started a run meanwhile.
    if is_left_alone() or (_prepare(runtime, target, baked) and is_left_alone()):
        keep()
        return
    keep()
    try:
        _start_postgres(runtime, timeout)
        _start(runtime, target, baked, timeout)
    except StillStarting as error:
        error.next = f"invoke up --orch {target.name}   (continues to wait)"
        raise


def _executes_a_run(runtime: Runtime, active: Orchestrator) -> bool:
    """Whether the active orchestrator executes a run and none of its services has ended: then it is not touched.

    After a change, or if a service is just too busy for its health command, it would be restarted.
    """
    services = runtime.services()
    if any(service.state != "running" for service in services):
        return False  # it has to be repaired
    try:
        found = pipeline.active_runs(runtime)
    except ApiUnusable:
        return False
    sick = [service.name for service in services if service.health != "healthy"]
    if found and sick:
        console.advice(f"A run is in progress: {_named(found)}. {active.title} is left alone, although not healthy: {', '.join(sick)}.")
        console.note("  To have it started again: invoke run --cancel, then: invoke up")
    elif found:
        console.ok(f"{active.title} is healthy")
        console.advice(f"A run is in progress: {_named(found)}. Changes since the start take effect at the next invoke up after the run.")
    return bool(found)


def switch(runtime: Runtime, target: Orchestrator, *, baked: bool, timeout: int, on_active_run: OnActiveRun = OnActiveRun.REFUSE) -> None:
    """Replace the active orchestrator with ``target``; roll back to the old one if the new one fails.

    Whatever can be checked or built in advance (configuration, ports, builds) fails while the old one still runs.

    Raises:
        NothingActive: there is nothing to switch from.
        RunInProgress: the active one executes a run, and ``on_active_run`` is to refuse.
    """
    active = runtime.active()
    if active is None:
        raise NothingActive("No orchestrator is active, so there is nothing to switch from.", "", f"invoke up --orch {target.name}")
    if active == target.name:
        console.ok(f"{target.title} is the active orchestrator already")
        up(runtime, target, baked=baked, timeout=timeout)
        return
    if pull(runtime, target) and runtime.runner.dry:  # as in `up`
        return
    was_baked = runtime.baked()
    command = f"invoke switch {target.name}"
    with ThreadPoolExecutor(1) as pool:  # both mostly wait for answers
        checked = pool.submit(runtime.checks.preflight, target, baked=baked)
        if on_active_run is OnActiveRun.REFUSE:  # before a long build
            _settle(runtime, on_active_run, command)
        checked.result()
    if on_active_run is not OnActiveRun.REFUSE and runtime.images.in_use and runtime.images.outdated([POSTGRES], baked=baked):
        _settle(runtime, on_active_run, command)  # the build stops the server that a run uses
    if _build_outdated(runtime, target, baked) or on_active_run is not OnActiveRun.REFUSE:
        _settle(runtime, on_active_run, command)
    old = runtime.orchestrators[active]
    faults.point("prepared")
    try:
        _start_postgres(runtime, timeout)
        _stop(runtime, old)
        _start(runtime, target, baked, timeout)
    except BrokenPipeError:  # nobody reads what is printed
        terminal.leave_output()
        raise KeyboardInterrupt(_bring_back(runtime, old, was_baked)) from None
    except (StackError, OSError) as error:
        _announce(f"{target.title} did not start; bringing {old.title} back")
        outcome = _bring_back(runtime, old, was_baked)
        if isinstance(error, OSError):  # for example because the checkout's disk is full
            error = diagnosis.refusal(error) or StackError(f"{target.title} did not start.", str(error), "invoke doctor")
        error.what += " " + outcome
        if error.next == "invoke logs":  # those are the logs of the old orchestrator by now
            error.next = f"Fix what its log shows, then: {command}"
        if isinstance(error, StillStarting):
            error.why, error.next = "Nothing failed; the timeout was too short.", f"{command} --timeout {2 * timeout}"
        raise error from None
    except KeyboardInterrupt:
        _announce(f"Interrupted; bringing {old.title} back")
        raise KeyboardInterrupt(_bring_back(runtime, old, was_baked)) from None


def scale(runtime: Runtime, *, timeout: int, keep: Callable[[], None]) -> None:
    """Change the active orchestrator's workers to the number in the settings.

    Args:
        runtime: where.
        timeout: seconds for new workers to become healthy.
        keep: writes the number to ``.env``; called after all checks, before anything is started.

    Raises:
        NothingActive: none is up.
        RunInProgress: a run is in progress, and services have to change, because there were no workers before, or will be none.
        ApiUnusable: services have to change, and whether a run is in progress is not known.
    """
    active = runtime.active()
    workers = runtime.settings["WORKERS"]
    if active is None:
        raise NothingActive("No orchestrator is active.", "", f"invoke up --workers {workers or 0}")
    target = runtime.orchestrators[active]
    if why := runtime.unsupported(target):
        raise EngineMissing(why, "", "invoke down, then: invoke up --runtime docker")
    baked = runtime.baked()
    if target.scaled and bool(workers) != any(service.name in target.scaled for service in runtime.services()):
        _prepare(runtime, target, baked)
        _settle(runtime, must_know=True)
        keep()
        _start(runtime, target, baked, timeout)
        return
    runtime.checks.preflight(target, baked=baked)
    keep()
    with _waiting("scale", target.title, f"{target.title} has {workers or 1} of {target.worker}") as waiting:
        runtime.scale(target, baked=baked, timeout=timeout, on_line=waiting.detail)


def _stop(runtime: Runtime, orchestrator: Orchestrator) -> None:
    """Stop the active orchestrator. An interrupt takes effect after that: a half-stopped orchestrator would look like a running one."""
    answer = f"Stopping {orchestrator.title} first; the interrupt takes effect after that."
    with _deferring_interrupts(answer) as interrupts, console.Waiting("stop", orchestrator.title) as waiting:
        runtime.stop_orchestrator(waiting.detail)
    faults.point("stopped")
    if interrupts:
        raise KeyboardInterrupt


def _announce(text: str) -> None:
    """Print the next step, and continue even if nobody reads the output."""
    try:
        console.fail(text)
    except BrokenPipeError:
        terminal.leave_output()


def _bring_back(runtime: Runtime, old: Orchestrator, baked: bool) -> str:
    """Start the old orchestrator again, which cannot be interrupted, and return the outcome as text."""
    with _deferring_interrupts(f"Starting {old.title} again, which cannot be interrupted; this usually takes less than a minute."):
        try:
            if runtime.active() != old.name:
                with console.Waiting("stop", "what was started") as waiting:
                    runtime.stop_orchestrator(waiting.detail)
            _start_postgres(runtime, ROLLBACK_TIMEOUT_S)
            _start(runtime, old, baked, ROLLBACK_TIMEOUT_S)
        except (StackError, OSError) as error:
            what = error.what if isinstance(error, StackError) else error
            return f"{old.title} could not be started again either: {what} Next: invoke up --orch {old.name}"
    return f"{old.title} is active again."


@contextmanager
def _deferring_interrupts(answer: str) -> Iterator[list[int]]:
    """Print ``answer`` on an interrupt instead of ending; yield the list of interrupts. If nobody reads the output, that counts as one."""
    came: list[int] = []

    def unread() -> None:
        terminal.leave_output()
        came.append(signal.SIGTERM)

    def note(number: int, _: object) -> None:
        came.append(number)
        if number == getattr(signal, "SIGHUP", None):
            terminal.leave_terminal()
        console.note(answer)

    # Ignored signals, such as SIGHUP under nohup, stay ignored.
    before = {number: signal.signal(number, note) for number in terminal.INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN}
    before_unread, console.unread = console.unread, unread
    try:
        yield came
    finally:
        console.unread = before_unread
        for number, handler in before.items():
            signal.signal(number, handler)


def _settle(runtime: Runtime, on_active_run: OnActiveRun = OnActiveRun.REFUSE, command: str = "", *, must_know: bool = False) -> None:
    """Make sure that the active orchestrator executes no run. If it does not answer, that is fine unless ``must_know``.

    Raises:
        RunInProgress: it executes one, and ``on_active_run`` is to refuse; ``command`` is what was typed, if it has --wait and --force.
        ApiUnusable: it does not answer, with ``must_know``; or it stopped answering during the wait for a run.
    """
    try:
        found = pipeline.active_runs(runtime)
    except ApiUnusable as error:
        if must_know:
            raise
        # It has to be possible to replace a broken orchestrator.
        console.fail(f"{error.what} An active run cannot be ruled out.")
        return
    if not found:
        return
    if on_active_run is OnActiveRun.REFUSE:
        raise RunInProgress(
            f"A run is in progress: {found[0].job}." if len(found) == 1 else f"{len(found)} runs are in progress.",
            "\n".join(map(str, found)),
            f"{command} --wait    (for its end)\n{command} --force   (cancel it)"
            if command
            else "Wait until it ends, or: invoke run --cancel",
        )
    if on_active_run is OnActiveRun.FORCE:
        try:
            with _waiting("cancel", _named(found), f"{_named(found)} cancelled"):
                pipeline.cancel_runs(runtime)
                command_lock.wait_for_followers(runtime.settings.root)
        except ApiUnusable as error:
            console.fail(f"{error.what} The run ends when its orchestrator stops.")
        return
    with _waiting("wait for", _named(found), f"{_named(found)} ended"):
        _wait_for_runs(runtime)
        command_lock.wait_for_followers(runtime.settings.root)


def _wait_for_runs(runtime: Runtime) -> None:
    """Wait until no run is in progress.

    Raises:
        ApiUnusable: the orchestrator has not answered for a minute; a service that restarts misses only a few requests.
    """
    answered = time.monotonic()
    while True:
        try:
            if not pipeline.active_runs(runtime):
                return
            answered = time.monotonic()
        except ApiUnusable:
            if time.monotonic() - answered > ANSWER_TIMEOUT_S:
                raise
        time.sleep(1)


def _named(runs: list[pipeline.ActiveRun]) -> str:
    return ", ".join(f"{run.job} ({run.run_id})" for run in runs)


def _prepare(runtime: Runtime, target: Orchestrator, baked: bool) -> bool:
    """Check, pull and build what ``target`` needs; returns whether it pulled or built anything.

    With Docker, nothing that runs is touched. Without Docker, PostgreSQL is stopped to replace its programs, and started again; an
    orchestrator's environment is rebuilt in place, and restored if that fails.
    """
    pulled = pull(runtime, target)
    runtime.checks.preflight(target, baked=baked)
    built = _build_outdated(runtime, target, baked)
    faults.point("prepared")
    return pulled or built


def _build_outdated(runtime: Runtime, target: Orchestrator, baked: bool) -> bool:
    """Build what ``target`` needs and what is missing or out of date; return whether anything was built."""
    outdated = runtime.images.outdated([POSTGRES, target.name], baked=baked)
    _build_in_place(runtime, outdated)
    return bool(outdated)


def _start_postgres(runtime: Runtime, timeout: int) -> None:
    with console.Waiting("start", "PostgreSQL") as waiting:
        runtime.start_postgres(timeout, waiting.detail)
    console.done(f"PostgreSQL is healthy on localhost:{runtime.settings.port('POSTGRES_PORT')}")
    faults.point("postgres")


def _start(runtime: Runtime, target: Orchestrator, baked: bool, timeout: int) -> None:
    if not runtime.runner.dry:
        runtime.settings.remember_ports(["POSTGRES_PORT", target.ui_port])
    with _waiting("start", target.title, f"{target.title} is healthy") as waiting:
        runtime.start(target, baked=baked, timeout=timeout, on_line=waiting.detail)
    faults.point("started")


def down(runtime: Runtime, on_active_run: OnActiveRun = OnActiveRun.REFUSE) -> None:
    """Take everything down; the data stays.

    Raises:
        RunInProgress: the active orchestrator executes a run, and ``on_active_run`` is to refuse.
    """
    _settle(runtime, on_active_run, "invoke down")
    _down(runtime)
    console.note(f"  The data is kept in {', '.join(runtime.data.names()) or 'no volume: nothing was ever started'}.")


def _down(runtime: Runtime) -> None:
    with _waiting("stop", "everything", "Everything is stopped") as waiting:
        runtime.down(waiting.detail)
    if not runtime.runner.dry:
        runtime.settings.forget_ports()
    faults.point("down")


def clean(runtime: Runtime, *, volumes: bool, images: bool, yes: bool, first: Callable[[], None] | None = None) -> None:
    """Remove containers and network, and on request volumes and images, after a question.

    Args:
        first: called before the question and the deletion of data; if it raises, nothing is deleted.

    Raises:
        RunInProgress: the active orchestrator executes a run.
        BadUsage: something would be deleted, and the answer was not yes.
    """
    _settle(runtime, OnActiveRun.REFUSE, "invoke down")
    doomed_volumes = runtime.data.names() if volumes else []
    doomed_images = runtime.images.names() if images else []
    if doomed_volumes and first:
        first()
    if doomed_volumes and not yes and not console.confirm(f"Delete {', '.join(doomed_volumes)} and all data in it?"):
        raise BadUsage("Nothing was deleted.", "The question was not answered with yes.", "invoke clean --volumes --yes")
    _down(runtime)
    runtime.data.remove(doomed_volumes)
    runtime.images.remove(doomed_images)
    if doomed_images and runtime.images.cache_note:
        console.note(runtime.images.cache_note)
    for name in (*doomed_volumes, *doomed_images):
        console.say(f"Would delete {name}") if console.dry else console.ok(f"Deleted {name}")
