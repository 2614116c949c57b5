"""Failures: what is broken on purpose, how each orchestrator reports it, and what it executes again after the fix."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError

from bench.run import Typed, typed
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import AT_WORK, Trial

BROKEN = Row(
    "broken_model",
    "A broken model",
    "A model gets a line that is no SQL. From typing `invoke run` to its end with the model's name and an exit code other than 0.",
    "s",
)
RECOVERY = Row(
    "recovery",
    "Executed after the fix ÷ needed",
    "The model is as before; then `invoke run --failed`. Nodes for which PostgreSQL worked, divided by those that had to be executed:"
    " the model and all that needs it.",
    "×",
)
GREEN = Row("recovery_seconds", "Green after the fix", "From typing `invoke run --failed` to the prompt.", "s")

FAILING = Row(
    "failing_test",
    "A failing test",
    "A test that finds a row is added to the same model. From typing `invoke run` to its end with the test's name and an exit code other"
    " than 0; what needs the model must be skipped.",
    "s",
)
UNREADABLE = Row(
    "no_parse",
    "A project that does not parse",
    "The same model gets a line that is no Jinja. From typing `invoke run` to its end with the model's name; nothing must be executed.",
    "s",
)
CANCEL = Row(
    "cancel",
    "A run is cancelled",
    "`invoke run --cancel` while PostgreSQL works on the last model of a run, from typing it to the prompt; the query must have ended.",
    "s",
)
KILLED = Row(
    "killed",
    "The service that runs dbt is killed",
    "kill -9 at the same moment; Docker starts it again, natively `invoke up` does. From then until the command and the run have"
    " ended, well or not; the next run must succeed.",
    "s",
)
RESTARTED = Row(
    "postgres_restarted",
    "PostgreSQL is restarted",
    "At the same moment. From then until the command and the run have ended, well or not; the next run must succeed.",
    "s",
)

ENDS = {0: "the run succeeds", 1: "the run fails"}  # by exit code
PATIENCE = 300  # seconds in which a run must end that was disturbed
NO_JINJA = "\n{{ this is no Jinja\n"
TEST = "compare_failing_test"
NO_SQL = "\nthis line is no SQL\n"


def broken_model(trial: Trial) -> Iterator[Found]:
    """Break the model that most others need, run, mend it, and run what failed."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    needing = trial.graph.downstream(victim.id) & trial.green
    with trial.edited(victim.path, NO_SQL):
        run = trial.run()
        ran = (needing - trial.graph.before(victim.id)) & trial.spans(run.began, run.ended).keys()
    parts = {"model": victim.id, "downstream": sorted(needing), "ran": sorted(ran)}
    verdict, good = judged(run.code, mentions(run.text, victim.name), len(needing), len(ran))
    yield Found(BROKEN.id, run.seconds, verdict, good, parts)
    needed = needing | {victim.id}
    run = trial.run("--failed")
    executed = trial.spans(run.began, run.ended).keys()
    left = needed - executed
    verdict = f"ends with exit code {run.code}" if run.code else f"{len(left)} of {len(needed)} left out" if left else "green, all of them"
    parts = {"needed": sorted(needed), "executed": sorted(executed)}
    yield Found(RECOVERY.id, len(executed) / len(needed), verdict, not run.code and not left, parts)
    yield Found(GREEN.id, why="the run after the fix failed") if run.code else Found(GREEN.id, run.seconds)


def failing_test(trial: Trial) -> Iterator[Found]:
    """Add a test that fails."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    blocked = trial.graph.blocked(victim.id) & trial.green
    with trial.added("tests", f"{TEST}.sql", f"select 1 as found from (select 1) as one -- {{{{ ref('{victim.name}') }}}}\n"):
        run = trial.run()
        ran = blocked & trial.spans(run.began, run.ended).keys()
    verdict, good = judged(run.code, TEST in run.text, len(blocked), len(ran))
    yield Found(FAILING.id, run.seconds, verdict, good, {"downstream": sorted(blocked), "ran": sorted(ran)})


def no_parse(trial: Trial) -> Iterator[Found]:
    """Make a project that dbt cannot parse."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    with trial.edited(victim.path, NO_JINJA):
        run = trial.run()
        ran = trial.spans(run.began, run.ended)
    named = mentions(run.text, victim.name)
    if not run.code:
        verdict = "ends as if all were well"
    elif ran:
        verdict = f"{len(ran)} nodes ran all the same"
    else:
        verdict = "named; nothing executed" if named else "fails without its name"
    yield Found(UNREADABLE.id, run.seconds, verdict, bool(run.code and named and not ran), {"ran": sorted(ran)})


def cancelled(trial: Trial) -> Iterator[Found]:
    """Cancel a run."""
    with trial.under_way() as future:
        cancel = typed(trial.stand, "run", "--cancel")
        left = trial.stand.superuser(AT_WORK).strip() != "0|0"
        run = future.result(PATIENCE)
    if cancel.code or not run.code:
        verdict = "the run does not end" if cancel.code else "ends as if all were well"
    else:
        verdict = "the query still runs" if left else "run and query have ended"
    yield Found(CANCEL.id, cancel.seconds, verdict, not cancel.code and bool(run.code) and not left)


def killed(trial: Trial) -> Iterator[Found]:
    """Kill the service that runs dbt."""
    yield disturbed(trial, KILLED, trial.kill_dbt)


def restarted(trial: Trial) -> Iterator[Found]:
    """Restart PostgreSQL."""
    yield disturbed(trial, RESTARTED, trial.restart_postgres)


def disturbed(trial: Trial, row: Row, strike: Callable[[], object]) -> Found:
    """Do something to the stack while a run is under way, and see what becomes of that, and of the next one."""
    run: Typed | None = None
    with trial.under_way() as future:
        began = time.time()
        strike()
        with contextlib.suppress(TimeoutError):  # then it is cancelled
            run = future.result(PATIENCE)
        left = ", its query still runs" if trial.stand.superuser(AT_WORK).strip() != "0|0" else ""
        over = trial.idle_at(began + PATIENCE)
    if over is None:
        trial.stand.invoke("run", "--cancel")
    again = trial.run()
    ended = ENDS.get(run.code, f"the command ends with exit code {run.code}") if run and over else "the run does not end"
    verdict = f"{ended}{left}; the next one {'fails' if again.code else 'succeeds'}"
    parts = {"code": run and run.code, "said": run and run.text[-500:], "next_code": again.code, "next_said": again.text[-500:]}
    seconds = max(run.ended, over) - began if run and over else None
    return Found(row.id, seconds, verdict, seconds is not None and not again.code, parts)


def mentions(text: str, name: str) -> bool:
    """Whether the text has the name as a word of its own."""
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def judged(code: int, named: bool, needing: int, ran: int) -> tuple[str, bool]:
    """The verdict on a run with something broken, and whether it is good.

    Args:
        code: of the command.
        named: whether it has printed the name of what is broken.
        needing: how many nodes need it.
        ran: how many of these were executed all the same.
    """
    if not code:
        return "ends as if all were well", False
    if not named:
        return "fails without its name", False
    if ran:
        return f"named; {ran} of {needing} downstream nodes ran all the same", False
    return f"named; all {needing} downstream nodes skipped" if needing else "named; nothing is downstream", True


def sentence(report: Report) -> str:
    """The section's first."""
    good, all_ = report.judged(BROKEN)
    return (
        f"{good} of {all_} orchestrators named the broken model and skipped everything downstream; after the fix, the nodes that were"
        f" executed divided by those that had to be are {report.ranking(RECOVERY)}."
    )


SECTION = Section(
    "failures",
    "Failures",
    (
        Scenario("broken model and fix", broken_model, (BROKEN, RECOVERY, GREEN), 30),
        Scenario("failing test", failing_test, (FAILING,), 15, "default"),
        Scenario("project that does not parse", no_parse, (UNREADABLE,), 8, "default"),
        Scenario("run cancelled", cancelled, (CANCEL,), 30, "default"),
        Scenario("service killed", killed, (KILLED,), 90, "default"),
        Scenario("PostgreSQL restarted", restarted, (RESTARTED,), 60, "default"),
    ),
    sentence,
)
