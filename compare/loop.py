"""The day-to-day loop: a model is edited, and its table is new."""

from __future__ import annotations

import time
from collections.abc import Iterator

from compare.model import Found, Row, Scenario, Section
from compare.own import WAYS
from compare.report import Report
from compare.trial import LONGEST, Trial
from stack.errors import StackError

TABLE = Row(
    "edit_table",
    "From an edit to the new table",
    "The model that most others need is saved with a comment more; then `invoke run --select` with its name. Until PostgreSQL has done the"
    " model's last statement.",
    "s",
)
PROMPT = Row("edit_prompt", "From an edit to the prompt", "The same, until the command has ended: the model's tests included.", "s")
NODES = Row(
    "edit_nodes",
    "Executed after an edit ÷ asked for",
    "Nodes for which PostgreSQL worked in that run, divided by the model and its own tests.",
    "×",
)
OWN = Row(
    "edit_own",
    "Nodes executed for a change of one model",
    "The same edit, built without `invoke run`, by what a product's own API and page offer for a part of a project: Dagster materializes"
    " the model's asset, Airflow clears the model's tasks. Nodes for which PostgreSQL worked; the model and its own tests are asked for.",
)


def edit(trial: Trial) -> Iterator[Found]:
    """Edit one model, and build it alone."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    with trial.edited(victim.path, "\n-- compared\n"):
        run = trial.run("--select", victim.name)
        if run.code:
            raise StackError(f"The run of one model ended with exit code {run.code}.")
        spans = trial.spans(run.began, run.ended)
    asked = {victim.id, *trial.graph.tests(victim.id)} & trial.green
    yield Found(TABLE.id, spans[victim.id].ended - run.began, parts={"model": victim.id})
    yield Found(PROMPT.id, run.seconds)
    left = len(asked - spans.keys())
    verdict = f"{left} of {len(asked)} left out" if left else ""
    yield Found(
        NODES.id, len(spans) / len(asked), verdict, not left if verdict else None, {"asked": sorted(asked), "executed": list(spans)}
    )


def own_way(trial: Trial) -> Iterator[Found]:
    """Edit one model, and build it by the product's own means."""
    trial.require_nodes()
    way = WAYS.get(trial.name)
    if way is None:
        title = trial.stand.orchestrators[trial.name].title
        yield Found(OWN.id, why=f"{title} has nothing of its own for a part of a flow; a parameter of the flow selects nodes, as above")
        return
    victim = trial.graph.middle(trial.green)
    asked = {victim.id, *trial.graph.tests(victim.id)} & trial.green
    with trial.edited(victim.path, "\n-- compared again\n"):
        began = time.time()
        way.begin(trial, victim)
        ended = trial.idle_at(began + LONGEST)
        if ended is None:
            trial.stand.invoke("run", "--cancel")
            raise StackError(f"The run has not ended after {LONGEST} s.")
        executed = trial.spans(began, ended)
    left = len(asked - executed.keys())
    verdict = f"{way.words}; {f'{left} of {len(asked)} left out' if left else 'all that was asked for'}"
    yield Found(OWN.id, len(executed), verdict, not left, {"asked": sorted(asked), "executed": list(executed)})


def sentence(report: Report) -> str:
    """The section's first."""
    return f"From saving a model to its new table it takes {report.ranking(TABLE)}."


SECTION = Section(
    "loop",
    "The day-to-day loop",
    (
        Scenario("an edited model", edit, (TABLE, PROMPT, NODES), 12, "default"),
        Scenario("an edited model, the product's own way", own_way, (OWN,), 15, "default"),
    ),
    sentence,
)
