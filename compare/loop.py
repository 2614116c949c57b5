"""The day-to-day loop: from an edit of a model to its new table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from bench.run import Typed
from compare.model import Found, Row, Scenario, Section
from compare.products.product import product
from compare.report import Report
from compare.trial import RUN_TIMEOUT_S, Trial, known
from switchyard.errors import StackError

# Airflow's and Dagster's use the warm dbt, so a best value would not be the product's own merit.
TABLE = Row(
    "edit_table",
    "From an edit to the new table",
    "A comment is added to the model that most others need; then `invoke run --select` with its name. Until PostgreSQL has executed the"
    " model's last statement. On Airflow this runs a DAG with one task. On Airflow and Dagster the command first has the edited project"
    " loaded again.",
    "s",
    None,
)
PROMPT = Row("edit_prompt", "From an edit to the prompt", "The same, until the command has ended: the model's tests included.", "s", None)
NODES = Row(
    "edit_nodes",
    "Executed after an edit ÷ asked for",
    "Nodes that PostgreSQL executed in that run, divided by the number of nodes asked for: the model and its own tests.",
    "×",
    exact=True,
)
OWN = Row(
    "edit_own",
    "Nodes executed for a change of one model",
    "The same edit, built without `invoke run`, with what the product's own API and page offer for a part of a project: Dagster"
    " materializes the model's asset, Airflow clears the model's tasks, Prefect runs the deployment with the model's name as the flow's"
    " parameter `select`. Nodes that PostgreSQL executed; the model and its own tests are asked for. Airflow's tasks have Cosmos'"
    " `test_indirect_selection` set to `buildable` instead of its default `eager`: a test of two models runs with the later one.",
    better=None,
)
OWN_SECONDS = Row(
    "edit_own_seconds",
    "Seconds for that change",
    "The same, from asking the product's API for the run until it has ended.",
    "s",
    None,
)

BOX = Row(
    "new_model_box",
    "From a new model to its box in the graph",
    "A new model is saved; then the product's own means are used: Airflow's button Reparse (`PUT parseDagFile`), Dagster's button Reload"
    " (`reloadRepositoryLocation`); Prefect has no graph without a run, so `invoke run --select` with the model's name. Until the API"
    " returns the model as a task, an asset or a task run, to about half a second.",
    "s",
    None,
)
NEW = "compare_new_model"
NEW_MODEL = "select 1 as one\n"
SHOWN_TIMEOUT_S = 180  # seconds


def edit(trial: Trial) -> Iterator[Found]:
    """Edit one model, and build only that."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    with trial.edited(victim.path, "\n-- compared\n"):
        run = trial.run("--select", victim.name)
        if run.code:
            raise StackError(f"The run of one model ended with exit code {run.code}.")
        spans = trial.spans(run.began, run.ended)
    asked = {victim.id, *trial.graph.tests(victim.id)} & trial.green
    (span,) = known(spans, victim.id)
    yield Found(TABLE.id, span.ended - run.began, parts={"model": victim.id})
    yield Found(PROMPT.id, run.seconds)
    left = len(asked - spans.keys())
    verdict = f"{left} of {len(asked)} left out" if left else ""
    yield Found(
        NODES.id, len(spans) / len(asked), verdict, not left if verdict else None, {"asked": sorted(asked), "executed": list(spans)}
    )


def own_way(trial: Trial) -> Iterator[Found]:
    """Edit one model, and build it by the product's own means."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    asked = {victim.id, *trial.graph.tests(victim.id)} & trial.green
    with trial.edited(victim.path, "\n-- compared again\n"):
        began = time.time()
        run = product(trial.rig, trial.name).build(victim.name)
        trial.whole = False
        ended = trial.idle_at(began + RUN_TIMEOUT_S)
        if ended is None:
            trial.rig.invoke("run", "--cancel")
            raise StackError(f"The run has not ended after {RUN_TIMEOUT_S} s.")
        if not run.green():
            raise StackError(f"The run that starts when {run.way} failed.")
        executed = trial.spans(began, ended)
    left = len(asked - executed.keys())
    verdict = f"{run.way}; {f'{left} of {len(asked)} left out' if left else 'all that was asked for'}"
    yield Found(OWN.id, len(executed), verdict, None if left else True, {"asked": sorted(asked), "executed": list(executed)})
    yield Found(OWN_SECONDS.id, ended - began)


def new_model(trial: Trial) -> Iterator[Found]:
    """Add a model, and wait until the product's API returns it."""
    shown = product(trial.rig, trial.name)
    with ExitStack() as stack:
        stack.enter_context(trial.added("models", f"{NEW}.sql", NEW_MODEL))
        began = time.time()
        run: Future[Typed] | None = None
        if not shown.reload():
            run = stack.enter_context(ThreadPoolExecutor(1)).submit(trial.run, "--select", NEW)
        while NEW not in shown.boxes():
            if time.time() > began + SHOWN_TIMEOUT_S:
                raise StackError(f"Its API did not return the new model within {SHOWN_TIMEOUT_S} s.")
            time.sleep(0.1)
        seconds = time.time() - began
    if run and run.result().code:
        raise StackError(f"The run of the new model ended with exit code {run.result().code}.")
    yield Found(BOX.id, seconds, "with a run" if run else "without a run")


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return f"From saving a model to its new table, by `invoke run --select`, it takes {report.ranking(TABLE)}."


SECTION = Section(
    "loop",
    "The day-to-day loop",
    (
        Scenario("an edited model", edit, (TABLE, PROMPT, NODES), 11, "default"),
        Scenario("an edited model, the product's own way", own_way, (OWN, OWN_SECONDS), 8, "default", once=True),
        Scenario("a new model", new_model, (BOX,), 5, "default"),
    ),
    sentence,
)
