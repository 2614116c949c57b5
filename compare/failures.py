"""Failures: what is broken on purpose, how each orchestrator reports it, and what it executes again after the fix."""

from __future__ import annotations

from collections.abc import Iterator

from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial

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

NO_SQL = "\nthis line is no SQL\n"


def broken_model(trial: Trial) -> Iterator[Found]:
    """Break the model that most others need, run, mend it, and run what failed."""
    victim = trial.graph.middle()
    needing = trial.graph.downstream(victim.id) & trial.green
    with trial.edited(victim.path, NO_SQL):
        run = trial.run()
        ran = needing & trial.spans(run.began, run.ended).keys()
    parts = {"model": victim.id, "downstream": sorted(needing), "ran": sorted(ran)}
    verdict, good = judged(run.code, victim.name in run.text, len(needing), len(ran))
    yield Found(BROKEN.id, run.seconds, verdict, good, parts)
    needed = needing | {victim.id}
    run = trial.run("--failed")
    executed = trial.spans(run.began, run.ended).keys()
    left = needed - executed
    verdict = f"ends with exit code {run.code}" if run.code else f"{len(left)} of {len(needed)} left out" if left else "green, all of them"
    parts = {"needed": sorted(needed), "executed": sorted(executed)}
    yield Found(RECOVERY.id, len(executed) / len(needed), verdict, not run.code and not left, parts)
    if not run.code:
        yield Found(GREEN.id, run.seconds)


def judged(code: int, named: bool, needing: int, ran: int) -> tuple[str, bool]:
    """The verdict on a run with a broken model, and whether it is good.

    Args:
        code: of the command.
        named: whether it has printed the model's name.
        needing: how many nodes need the model.
        ran: how many of these were executed all the same.
    """
    if not code:
        return "ends as if all were well", False
    if not named:
        return "fails without the model's name", False
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


SECTION = Section("failures", "Failures", (Scenario("broken model and fix", broken_model, (BROKEN, RECOVERY, GREEN), 30),), sentence)
