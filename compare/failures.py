"""Failures: things are broken on purpose; how each orchestrator reports them, and what it executes again after the fix."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager

from bench.run import Typed, typed
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import AT_WORK, FILLING, ROOM, SLEPT, Trial
from switchyard.errors import StackError

BROKEN = Row(
    "broken_model",
    "A broken model",
    "A line that is not SQL is added to a model. From typing `invoke run` to its end with the model's name and an exit code other than 0.",
    "s",
)
RECOVERY = Row(
    "recovery",
    "Executed after the fix ÷ needed",
    "The model is restored; then `invoke run --failed`. Nodes that PostgreSQL executed, divided by those that had to be executed: the"
    " model and everything that needs it. The command is Switchyard's: on Airflow it clears the failed tasks and those after them;"
    " Dagster's re-execution and Prefect's retry run `dbt retry`.",
    "×",
    exact=True,
)
GREEN = Row("recovery_seconds", "Green after the fix", "From typing `invoke run --failed` to the prompt.", "s")
TESTS = Row(
    "recovery_tests",
    "Tests run again ÷ needed",
    "In that run: tests of the model, and of everything that needs it, that PostgreSQL executed, divided by the number of these tests.",
    "×",
    "high",
    exact=True,
)
CALLS = Row(
    "recovery_calls",
    "Commands until green",
    "After the fix: `invoke run --failed`, then `invoke run` until every needed node was executed and the run succeeds.",
    exact=True,
)

FAILING = Row(
    "failing_test",
    "A failing test",
    "A test that finds a row is added to the same model. From typing `invoke run` to its end with the test's name and an exit code other"
    " than 0; everything that needs the model has to be skipped.",
    "s",
)
UNREADABLE = Row(
    "no_parse",
    "A project that does not parse",
    "A line that is not Jinja is added to the same model. From typing `invoke run` to its end with the model's name; nothing may be"
    " executed. On Airflow and Dagster the command first has the project loaded again and reports that error, so no run is started.",
    "s",
)
HOOK = Row(
    "failing_hook",
    "A failing hook",
    "A post-hook that calls a missing function is added to the same model. From typing `invoke run` to its end with the function's name"
    " and an exit code other than 0; everything that needs the model has to be skipped.",
    "s",
)
PASSWORD = Row(
    "wrong_password",
    "A wrong password",
    "The password of the role `dbt` is changed in PostgreSQL. From typing `invoke run` to its end with PostgreSQL's reason; nothing may be"
    " executed.",
    "s",
)
DISK = Row(
    "disk_full",
    "A full disk",
    f"A pre-hook of the same model writes a table to a file system of {ROOM} MB, which is too small for it. From typing `invoke run` to its"
    " end with the system's reason; everything that needs the model has to be skipped. Natively this needs root, to mount the file system.",
    "s",
)
CANCEL = Row(
    "cancel",
    "A run is cancelled",
    "`invoke run --cancel` while PostgreSQL works on the last model of a run, from typing it to the prompt; the query has to have ended."
    " Airflow's task checks every two seconds whether it was cancelled (set here).",
    "s",
)
KILLED = Row(
    "killed",
    "The service that runs dbt is killed",
    "kill -9 at the same moment. Docker starts it again; natively, `invoke up` does. From the kill until the command and the run have"
    " ended, whether they succeed or fail; the next run has to succeed. A run that is resumed takes longer than one that fails."
    " Airflow's next scheduler adopts tasks every 20 s (set here; the default is 300), and fails those without a heartbeat for 45 s"
    " (set here; the default is 300). A Dagster run is ended by Switchyard's start script of the code server, once that is up again. A"
    " Prefect run is ended by an automation, 90 s after its last heartbeat, which can be 30 s old (set here; there is none by default).",
    "s",
    None,
)
BESIDE = Row(
    "beside_killed",
    "The other services are killed",
    "kill -9 of every service except that one, at the same moment: the servers of pages and APIs, the daemon. In Airflow, the scheduler is"
    " the service that runs dbt. Services are restarted, and the outcome is judged, as above. The time includes the rest of the model's"
    " 15 s. `invoke run` uses one of these services, and gives up if that does not answer.",
    "s",
    None,
)
RESTARTED = Row(
    "postgres_restarted",
    "PostgreSQL is restarted",
    "At the same moment. A service that ends because of that is started again, as above. From the restart until the command and the run"
    " have ended, whether they succeed or fail; the next run has to succeed. If Dagster's API fails once after that, Switchyard repeats"
    " the request.",
    "s",
    None,
)
ASLEEP = Row(
    "asleep",
    "The laptop sleeps",
    "At the same moment all services, PostgreSQL and the command are frozen for two minutes. From waking up until the command and the run"
    " have ended, whether they succeed or fail; the next run has to succeed.",
    "s",
    None,
)
# How soon PostgreSQL ends the query of a lost client (client_connection_check_interval in the compose file), plus a second.
LOST_CLIENT_S = 11
LEFT = Row(
    "left_in_warehouse",
    "Left in the warehouse",
    "After each fault of this section, when its run has ended: unfinished tables and views (dbt's `__dbt_tmp` and"
    f" `__dbt_backup`), and active dbt queries. PostgreSQL gets {LOST_CLIENT_S} s to notice that a client is lost, however soon the"
    " run ends: it checks every ten seconds. PostgreSQL itself rolls back open transactions. The sum over all faults.",
    better=None,
)

ENDS = {0: "the run succeeds", 1: "the run fails"}  # by exit code
# For any other exit code: by whether the last model was built.
LOST_SIGHT = {
    True: "`invoke run` loses sight of the run, which builds its last model",
    False: "`invoke run` loses sight of the run, which does not build its last model",
}
NO_JINJA = "\n{{ this is no Jinja\n"
TEST = "compare_failing_test"
ERROR = "{{ config(severity='error', enabled=true) }}"  # overrides the project's settings for all tests
FUNCTION = "compare_missing_function"
FAILING_HOOK = f"\n{{{{ config(post_hook='select {FUNCTION}()') }}}}\n"
REFUSED = "password authentication failed"  # PostgreSQL's message
NO_SPACE = "No space left on device"  # the system's message
SLEEP_S = 120  # seconds
MOST = 3  # commands after which it counts as not recovered
NO_SQL = "\nthis line is no SQL\n"


def broken_model(trial: Trial) -> Iterator[Found]:
    """Break the model that most others need, run, fix it, and run what failed."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    needing = trial.graph.downstream(victim.id) & trial.green
    # Its unit tests depend on it, but run before it.
    skipped = needing - trial.graph.before(victim.id)
    yield spoiled(trial, BROKEN, victim.id, trial.edited(victim.path, NO_SQL), lambda text: mentions(text, victim.name), skipped)
    yield from recovered(trial, needing | {victim.id})


def recovered(trial: Trial, needed: set[str]) -> Iterator[Found]:
    """Run what failed, and then everything until none of the ``needed`` nodes is left out."""
    run = trial.run("--failed")
    executed = trial.spans(run.began, run.ended).keys()
    left = needed - executed
    short = f"{len(left)} of {len(needed)} left out" if left else ""
    verdict = f"ends with exit code {run.code}" if run.code else short or "green, all of them"
    parts = {"needed": sorted(needed), "executed": sorted(executed)}
    yield Found(RECOVERY.id, len(executed) / len(needed), verdict, not run.code and not left, parts)
    yield Found(GREEN.id, why="the run after the fix failed") if run.code else Found(GREEN.id, run.seconds, short, False if left else None)
    tests = {node for node in needed if node.startswith(("test.", "unit_test."))}
    if tests:
        yield Found(TESTS.id, len(tests & executed) / len(tests), f"{len(tests & executed)} of {len(tests)}", tests <= executed)
    else:
        yield Found(TESTS.id, why="no test needs the model")
    typed = ["invoke run --failed"]
    while (run.code or left) and len(typed) < MOST:
        run = trial.run()
        left -= trial.spans(run.began, run.ended).keys()
        typed.append("invoke run")
    if run.code or left:
        yield Found(CALLS.id, verdict=f"not green after {len(typed)} commands", good=False, parts={"typed": typed})
    else:
        yield Found(CALLS.id, len(typed), parts={"typed": typed})


def failing_test(trial: Trial) -> Iterator[Found]:
    """Add a test that fails."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    blocked = trial.graph.blocked(victim.id) & trial.green
    test = trial.added("tests", f"{TEST}.sql", f"{ERROR}select 1 as found -- {{{{ ref('{victim.name}') }}}}\n")
    yield spoiled(trial, FAILING, victim.id, test, lambda text: TEST in text, blocked)


def failing_hook(trial: Trial) -> Iterator[Found]:
    """Add a post-hook that fails."""
    yield hooked(trial, HOOK, FAILING_HOOK, FUNCTION)


def disk_full(trial: Trial) -> Iterator[Found]:
    """Add a pre-hook that needs more space than there is."""
    with trial.full_disk():
        yield hooked(trial, DISK, FILLING, NO_SPACE)


def hooked(trial: Trial, row: Row, line: str, message: str) -> Found:
    """Add a hook that makes the model in the middle fail; the error has to contain ``message``."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    needing = (trial.graph.downstream(victim.id) - trial.graph.before(victim.id)) & trial.green
    edited = trial.edited(victim.path, line)
    return spoiled(trial, row, victim.id, edited, lambda text: message in text and mentions(text, victim.name), needing)


def spoiled(
    trial: Trial,
    row: Row,
    model: str,
    change: AbstractContextManager[None],
    named: Callable[[str], bool],
    skipped: AbstractSet[str],
) -> Found:
    """Run with something broken; check whether the error has its name, and which nodes are executed that should be skipped.

    Args:
        trial: the orchestrator.
        row: the row to measure.
        model: the id of the model that is broken, or tested.
        change: breaks it.
        named: whether the command's error has the name of what is broken.
        skipped: the nodes that need the model, and so must not be executed.
    """
    with change:
        run = trial.run()
        ran = skipped & trial.spans(run.began, run.ended).keys()
        trial.note_left(row.title)
    verdict, good = judged(run.code, named(error_of(run)), len(skipped), len(ran))
    return Found(row.id, run.seconds, verdict, good, {"model": model, "downstream": sorted(skipped), "ran": sorted(ran)})


def no_parse(trial: Trial) -> Iterator[Found]:
    """Make a project that dbt cannot parse."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    with trial.edited(victim.path, NO_JINJA):
        yield stopped(trial, UNREADABLE, lambda text: mentions(text, victim.name), "fails without its name")


def wrong_password(trial: Trial) -> Iterator[Found]:
    """Have PostgreSQL refuse dbt."""
    trial.set_password(secrets.token_hex(16))
    try:
        yield stopped(trial, PASSWORD, lambda text: REFUSED in text, "fails without the reason")
    finally:
        trial.set_password(trial.rig.settings["DBT_PASSWORD"])


def error_of(run: Typed) -> str:
    """The error with which a command ended: before that, it prints every node, including those that succeeded."""
    return re.split(r"^Error: ", run.text, flags=re.M)[-1] if run.code else ""


def stopped(trial: Trial, row: Row, named: Callable[[str], bool], unnamed: str) -> Found:
    """A run that has to end before it executes anything, and print the reason."""
    run = trial.run()
    ran = trial.spans(run.began, run.ended)
    trial.note_left(row.title)
    if not run.code:
        verdict = "ends as if all were well"
    elif ran:
        verdict = f"{len(ran)} nodes ran nevertheless"
    else:
        verdict = "named; nothing executed" if named(error_of(run)) else unnamed
    return Found(row.id, run.seconds, verdict, bool(run.code and named(error_of(run)) and not ran), {"ran": sorted(ran)})


def cancelled(trial: Trial) -> Iterator[Found]:
    """Cancel a run."""
    with trial.under_way() as future:
        cancel = typed(trial.rig, "run", "--cancel")
        left = trial.rig.superuser(AT_WORK).strip() != "0|0"
        run = trial.outcome(future)
        trial.at_rest(time.time() + LOST_CLIENT_S)
        trial.note_left(CANCEL.title)
    if cancel.code or run is None:
        verdict = "the run does not end"
    elif not run.code:
        verdict = "ends as if all were well"
    else:
        verdict = "the query still runs" if left else "run and query have ended"
    yield Found(CANCEL.id, cancel.seconds, verdict, not cancel.code and run is not None and bool(run.code) and not left)


def killed(trial: Trial) -> Iterator[Found]:
    """Kill the service that runs dbt."""
    yield disturbed(trial, KILLED, trial.kill_dbt)


def beside_killed(trial: Trial) -> Iterator[Found]:
    """Kill all services except the one that runs dbt."""
    orchestrator = trial.rig.orchestrators[trial.name]
    services = [service for service in orchestrator.services if service != orchestrator.dbt]
    yield disturbed(trial, BESIDE, lambda: trial.kill_all(services), f"{', '.join(services)}: ")


def restarted(trial: Trial) -> Iterator[Found]:
    """Restart PostgreSQL."""
    yield disturbed(trial, RESTARTED, trial.restart_postgres)


def asleep(trial: Trial) -> Iterator[Found]:
    """Freeze everything for a while."""

    def strike() -> float:
        with trial.frozen():
            time.sleep(SLEEP_S)  # not waiting for something: this is the fault itself
        return time.time()

    yield disturbed(trial, ASLEEP, strike)


def disturbed(trial: Trial, row: Row, strike: Callable[[], float | None], what: str = "") -> Found:
    """Disturb the stack during a run, and check how that run and the next one end.

    Args:
        trial: the orchestrator.
        row: the row to measure.
        strike: disturbs the stack; returns when to start the clock, in epoch seconds, if that is not at its own start.
        what: what was disturbed, for the verdict.
    """
    with trial.under_way() as future:
        began = time.time()
        began = strike() or began
        run = trial.outcome(future)  # one that has not ended is cancelled
        idle = trial.idle_at(began + trial.run_end_timeout)  # in Docker, the command may end with a service while the run continues
        left = trial.at_rest(began + LOST_CLIENT_S) is None
        built = bool(trial.tables(SLEPT))
        trial.note_left(row.title)
    if idle is None:
        with contextlib.suppress(StackError):  # the outcome is known already
            trial.rig.invoke("run", "--cancel")
    again = trial.run()
    verdict, good = outlived(run.code if run and idle else None, built, left, again.code)
    parts = {"code": run and run.code, "said": run and run.text[-500:], "next_code": again.code, "next_said": again.text[-500:]}
    seconds = max(run.ended, idle) - began if run and idle else None
    return Found(row.id, seconds, what + verdict, good, parts)


def outlived(code: int | None, built: bool, left: bool, next_code: int) -> tuple[str, bool | None]:
    """The verdict on a run that was disturbed, and whether it is good; None if the command does not know how the run ended.

    Args:
        code: the command's exit code; None if the command or the run did not end.
        built: whether the run has built its last model.
        left: whether its query still runs.
        next_code: the exit code of the next run.
    """
    if code is None:
        how, good = "the run does not end", False
    elif not code and not built:
        how, good = "ends as if all were well, without its last model", False
    else:
        how, good = ENDS.get(code, LOST_SIGHT[built]), True
    verdict = f"{how}{', its query still runs' if left else ''}; the next one {'fails' if next_code else 'succeeds'}"
    good = good and not left and not next_code
    return verdict, None if good and code not in ENDS else good


def leftovers(trial: Trial) -> Iterator[Found]:
    """What the faults before this have left."""
    found = {fault: left for fault, left in trial.left.items() if left}
    verdict = (
        "; ".join(f"{fault}: {', '.join(left)}" for fault, left in found.items())
        or f"nothing after {len(trial.left)} fault{'s' * (len(trial.left) > 1)}"
    )
    if trial.left:
        yield Found(LEFT.id, sum(map(len, found.values())), verdict, False if found else None, {"left": trial.left})
    else:
        yield Found(LEFT.id, why="no fault could be made")


def mentions(text: str, name: str) -> bool:
    """Whether the text contains the name as a separate word."""
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def judged(code: int, named: bool, needing: int, ran: int) -> tuple[str, bool]:
    """The verdict on a run with something broken, and whether it is good.

    Args:
        code: the command's exit code.
        named: whether it printed the name of what is broken.
        needing: how many nodes need it.
        ran: how many of these were executed nevertheless.
    """
    if not code:
        return "ends as if all were well", False
    if not named:
        return "fails without its name", False
    if ran:
        return f"named; {ran} of {needing} downstream nodes ran nevertheless", False
    return f"named; all {needing} downstream nodes skipped" if needing else "named; nothing is downstream", True


def sentence(report: Report) -> str:
    """The section's first sentence."""
    good, all_ = report.judged(BROKEN)
    named = f"With {good} of {all_} orchestrators, `invoke run` named the broken model and all downstream was skipped; " if all_ else ""
    return f"{named}after the fix, the nodes that were executed divided by those that had to be are {report.ranking(RECOVERY)}."


SECTION = Section(
    "failures",
    "Failures",
    (
        Scenario("broken model and fix", broken_model, (BROKEN, RECOVERY, GREEN, TESTS, CALLS), 54, once=True),
        Scenario("failing test", failing_test, (FAILING,), 26, "default", once=True),
        Scenario("failing hook", failing_hook, (HOOK,), 28, "default", once=True),
        Scenario("project that does not parse", no_parse, (UNREADABLE,), 5, "default", once=True),
        Scenario("wrong password", wrong_password, (PASSWORD,), 14, "default", once=True),
        Scenario("disk full", disk_full, (DISK,), 15, "full"),
        Scenario("run cancelled", cancelled, (CANCEL,), 30, "default", once=True),
        Scenario("service killed", killed, (KILLED,), 95, "default", once=True),
        Scenario("other services killed", beside_killed, (BESIDE,), 100, "default", once=True),
        Scenario("PostgreSQL restarted", restarted, (RESTARTED,), 50, "default", once=True),
        Scenario("laptop asleep", asleep, (ASLEEP,), 180, "full"),
        Scenario("what is left", leftovers, (LEFT,), 1, "default", once=True),
    ),
    sentence,
)
