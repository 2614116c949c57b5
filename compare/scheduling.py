"""Scheduling: jobs that are due, two that are due together, and some that are due while the stack is down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from bench.run import CONNECTED, server_log
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial, afterwards
from rundbt import jobs
from switchyard.errors import StackError

DUE = 10  # minutes in which the lag is measured
MISSED = 3  # due times while the stack is down
SLEEP_S = 3  # seconds that the model sleeps
START_S = 75  # seconds that a start and a first run may take; for each minute more, one lag less is measured
DUE_TIMEOUT_S = 180  # seconds in which a run that is due has to end
MINUTE = 60

LAG = Row(
    "schedule_lag",
    "From due to dbt",
    f"A job of one model is due every minute; the median of {DUE} due minutes. From the full minute to dbt's first connection to"
    " PostgreSQL. The polling intervals are set here: Airflow's scheduler every 0.2 s (by default every second), Dagster's queue every"
    " second (5), Prefect's worker every second (10).",
    "s",
)
WORST = Row("schedule_lag_max", "From due to dbt, the slowest", "The longest of the same.", "s")
TOGETHER = Row(
    "schedule_together",
    "Two due together",
    f"Two jobs are due in the same minute, each with a model that sleeps {SLEEP_S} s. From the full minute until PostgreSQL has built both"
    " models; the second dbt has to wait for the first, because of limits that are set here.",
    "s",
)
MADE_UP = Row(
    "schedule_missed",
    f"Missed runs caught up, of {MISSED}",
    f"The job is due {MISSED} times while the stack is down. Runs for the missed times, after `invoke up`. All settings for missed runs are"
    " defaults except Airflow's `catchup=False`: with `True`, Airflow catches up on all runs since a DAG's start date.",
    better=None,
)

MARK = "compare_job"  # a column that no table of the project has
JOBS = """jobs:
  daily: {{dbt: build}}
  each: {{dbt: run --select compare_each, schedule: "* * * * *"}}
  once: {{dbt: run --select compare_once, schedule: "{minute} * * * *"}}
"""
# Each run of a job adds a row.
SQL = f"""{{{{{{{{ config(materialized='incremental', incremental_strategy='append') }}}}}}}}
select '{{job}}' as {MARK}, clock_timestamp() as began, pg_sleep({SLEEP_S})::text as slept, clock_timestamp() as ended
"""


class Done(NamedTuple):
    """One run of a job: its name, and epoch seconds."""

    job: str
    began: float
    ended: float


def schedules(trial: Trial) -> Iterator[Found]:
    """Have a job due each minute, then another one with it, then some while the stack is down."""
    rig = trial.rig
    together = following(time.time() + START_S) + DUE * MINUTE
    with scheduled(trial, together):
        run = trial.run("--job", "each")  # fills the caches, as for the later runs
        if run.code:
            raise StackError(f"The first run of the job to schedule ended with exit code {run.code}.")
        first = following(settled(trial))
        until(together - 10)  # the last of them has ended, or takes too long; the log must not be read while something is due
        connections = [float(match[1]) for line in server_log(rig) if (match := CONNECTED.search(line))]
        try:
            found = lags(range(first, together, MINUTE), connections, runs(trial))
        except StackError as error:  # the other rows are still useful
            yield from (Found(row.id, why=error.what) for row in (LAG, WORST))
        else:
            parts = {"due": first, "lags": [round(lag, 3) for lag in found]}
            yield Found(LAG.id, median(found), f"of {len(found)} due minutes", parts=parts)
            yield Found(WORST.id, max(found), parts=parts)
        until(together)
        try:
            yield turns([awaited(trial, job, together, together + DUE_TIMEOUT_S) for job in ("each", "once")], together)
        except StackError as error:
            yield Found(TOGETHER.id, why=error.what)
        yield made_up(trial)


@contextmanager
def scheduled(trial: Trial, together: int) -> Iterator[None]:
    """The stack with the jobs, with their schedules turned on."""
    rig = trial.rig
    before = rig.env["SCHEDULES_ENABLED"]

    def again(enabled: str) -> None:
        rig.invoke("down", "--force")
        rig.env["SCHEDULES_ENABLED"] = enabled

    def restore() -> None:
        if rig.env["SCHEDULES_ENABLED"] != before:
            again(before)
        rig.invoke("up", "--orch", trial.name)
        trial.drop(MARK)

    with afterwards(restore), contextlib.ExitStack() as stack:
        for job in ("each", "once"):
            stack.enter_context(trial.added("models", f"compare_{job}.sql", SQL.format(job=job)))
        stack.enter_context(trial.replaced(jobs.FILE, JOBS.format(minute=together // 60 % 60).encode()))
        again("true")
        rig.invoke("up", "--orch", trial.name)
        yield
        again(before)  # before the files change, so that no deleted job is scheduled


def following(moment: float) -> int:
    """The full minute after a moment, in epoch seconds."""
    return (int(moment) // MINUTE + 1) * MINUTE


def until(moment: float) -> None:
    """Wait until a time, in epoch seconds."""
    time.sleep(max(0.0, moment - time.time()))


def awaited(trial: Trial, job: str, due: float, deadline: float) -> Done:
    """The run of a job that was due, once it has ended.

    Raises:
        StackError: it has not ended by the deadline.
    """
    while not (found := [one for one in runs(trial) if one.job == job and one.began >= due]):
        if time.time() > deadline:
            raise StackError(f"A run that was due had not ended after {deadline - due:.0f} s.")
        time.sleep(1)
    return found[0]


def settled(trial: Trial) -> float:
    """Wait until nothing is in progress, with enough time left in the minute to do something before the next one; return the time.

    Raises:
        StackError: runs follow one another without a pause.
    """
    deadline = time.time() + DUE_TIMEOUT_S
    while idle := trial.idle_at(deadline):
        if idle % MINUTE < MINUTE - 20:
            return idle
        until(following(idle) + MINUTE / 3)  # by then, what is due has started
    raise StackError("A run that a schedule started had not ended when the next one was due.")


def runs(trial: Trial) -> list[Done]:
    """All runs that have ended, in order."""
    query = f"select {MARK}, extract(epoch from began), extract(epoch from ended) from {{}};"
    rows = [line.split("|") for table in trial.tables(MARK) for line in trial.warehouse(query.format(table)).splitlines()]
    return sorted((Done(job, float(began), float(ended)) for job, began, ended in rows), key=lambda done: done.began)


def lags(due: Sequence[int], connections: Sequence[float], done: Sequence[Done]) -> list[float]:
    """Seconds from each due time to dbt's first connection.

    Args:
        due: full minutes, in epoch seconds.
        connections: when dbt connected.
        done: the runs.

    Raises:
        StackError: there is no due time, or there is not exactly one run for each, which starts after it and ends before the next, or
            there is no connection after the last one.
    """
    if not due:
        raise StackError("The start took so long that no due minute was left.")
    for at in due:
        if [at < one.began and one.ended < at + MINUTE for one in done if at < one.ended and one.began < at + MINUTE] != [True]:
            raise StackError("There was not exactly one run in each due minute.")
    if max(connections, default=0.0) < due[-1]:
        raise StackError("PostgreSQL's log has no connection of dbt after the last due minute.")
    return [min(moment for moment in connections if moment >= at) - at for at in due]


def turns(two: Sequence[Done], due: float) -> Found:
    """The measurement of two jobs that were due at the same time."""
    one, other = sorted(two, key=lambda done: done.began)
    apart = one.ended <= other.began
    verdict = "one after the other" if apart else "at the same time"
    return Found(
        TOGETHER.id,
        other.ended - due,
        verdict,
        None if apart else False,
        {"done": [[done.began - due, done.ended - due] for done in (one, other)]},
    )


def made_up(trial: Trial) -> Found:
    """Stop the stack for some due times, start it, and count the runs that it catches up on.

    Raises:
        StackError: the start took so long that it missed one more, or the runs do not end.
    """
    settled(trial)
    asked = time.time()
    trial.rig.invoke("down", "--force")
    down = time.time()
    if following(asked) != following(down):
        raise StackError("A minute ended during the stop, so it is not known how many runs were missed.")
    last = following(down) + (MISSED - 1) * MINUTE
    until(last + 1)
    trial.rig.invoke("up", "--orch", trial.name)
    next_ = last + MINUTE
    if time.time() > next_:
        raise StackError("The start took more than a minute, so one more run was missed.")
    until(next_)
    awaited(trial, "each", next_, next_ + MINUTE)
    settled(trial)
    found = [one for one in runs(trial) if down < one.began < next_ + MINUTE]
    return Found(MADE_UP.id, len(found) - 1, parts={"began": [round(one.began - next_, 1) for one in found]})


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return f"After a job's due time, dbt's first connection comes after {report.ranking(LAG)}."


SECTION = Section(
    "scheduling",
    "Scheduling",
    (Scenario("jobs that fall due", schedules, (LAG, WORST, TOGETHER, MADE_UP), 1080, "full"),),
    sentence,
)
