"""Backfill: days of a microbatch model, filled at once, and what is left to do after it was killed half way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from bench.run import Typed
from compare.failures import ENDS
from compare.model import Found, Row, Scenario, Section
from compare.report import Report
from compare.trial import Trial
from switchyard.errors import StackError

DAYS = 7
HALF = 3  # days that are filled when the service is killed
SLEEP_S = 2  # seconds that each day takes at least in that case

FILLED = Row(
    "backfill",
    f"{DAYS} days",
    f"A microbatch model over {DAYS} days and the table that it reads, with `invoke run --select +MODEL --full-refresh`. From typing it to"
    " the prompt; each day has to be filled once. It is dbt's own backfill, started by each product: Airflow's backfills and Dagster's"
    " partitions are not set up in these integrations.",
    "s",
)
RUNS = Row("backfill_runs", f"Runs for {DAYS} days", "dbt's invocations that filled them; one command was typed.", better=None)
KILLED = Row(
    "backfill_killed",
    "Killed half way",
    f"The same, but each day takes {SLEEP_S} s more; the service that runs dbt gets kill -9 when at least {HALF} days are filled. Docker"
    " starts it again, natively `invoke up` does. From the kill until the command, the run and dbt have ended.",
    "s",
)
COMPLETE = Row(
    "backfill_complete",
    "Complete after that",
    f"From typing `invoke run --failed` until all {DAYS} days are filled; if they are not, the first command is typed again.",
    "s",
)
AGAIN = Row("backfill_again", "Days filled again", "Days that were already filled after the kill, and that those commands filled again.")

SOURCE, MODEL = "compare_days", "compare_backfill"
DAY = "compare_day"  # columns that no table of the project has
SOURCE_DAY = "compare_source_day"
COMMAND = ("--select", f"+{MODEL}", "--full-refresh")


class Filled(NamedTuple):
    """One row of the model's table: its day, dbt's invocation and the time."""

    day: str
    run: str
    at: str


def filled(trial: Trial) -> Iterator[Found]:
    """Fill all days at once."""
    with models(trial, 0):
        run = trial.run(*COMMAND)
        if run.code:
            raise StackError(f"The backfill ended with exit code {run.code}.", run.text[-1000:])
        found = rows(trial)
    yield Found(FILLED.id, run.seconds, count(found), complete(found), {"days": [row.day for row in found]})
    yield Found(RUNS.id, len({row.run for row in found}))


def killed(trial: Trial) -> Iterator[Found]:
    """Kill the service that runs dbt half way, then fill what is left."""
    with models(trial, SLEEP_S):
        with trial.started(lambda: len(rows(trial)) >= HALF, *COMMAND) as future:
            struck_at = time.time()
            trial.kill_dbt()
            run = trial.outcome(future)  # one that has not ended is cancelled
            deadline = struck_at + trial.run_end_timeout
            ended = (run.ended if run else None, trial.idle_at(deadline), trial.at_rest(deadline))
        before = rows(trial)
        verdict, good = struck(run, ended, before)
        known = [at for at in ended if at is not None]
        parts = {"code": run and run.code, "said": run and run.text[-500:], "days": sorted(days(before))}
        yield Found(KILLED.id, max(known) - struck_at if len(known) == len(ended) else None, verdict, good, parts)
        yield from mended(trial, before)


def mended(trial: Trial, before: list[Filled]) -> Iterator[Found]:
    """Fill what is left, with as many commands as it takes.

    Args:
        trial: the orchestrator.
        before: the rows so far.
    """
    found, again, outcomes, began = before, 0, [], time.time()
    for args in (("--failed",), COMMAND):
        run = trial.run(*args)
        known, found = found, rows(trial)
        again += len(days(before) & days(set(found) - set(known)))
        outcomes.append(f"`invoke run {' '.join(args)}` ends with exit code {run.code}, {count(found)}")
        if complete(found) and not run.code:
            break
    done = complete(found) and not run.code
    verdict = "; then ".join(outcomes)
    yield Found(COMPLETE.id, run.ended - began if done else None, verdict, done and len(outcomes) == 1, {"said": run.text[-500:]})
    yield Found(AGAIN.id, again, parts={"before": sorted(days(before))})


@contextmanager
def models(trial: Trial, sleep: float) -> Iterator[None]:
    """The model and the table that it reads; both are removed afterwards."""
    today = datetime.now(timezone.utc).date()
    with ExitStack() as stack:
        for column in (DAY, SOURCE_DAY):
            stack.callback(trial.drop, column)
        for name, text in texts(today - timedelta(days=DAYS - 1), today, sleep).items():
            stack.enter_context(trial.added("models", f"{name}.sql", text))
        yield


def texts(first: date, last: date, sleep: float) -> dict[str, str]:
    """The models: dbt has a batch for each day from the first to today, and each takes ``sleep`` seconds more."""
    return {
        SOURCE: f"""{{{{ config(materialized='table', event_time='{SOURCE_DAY}') }}}}
select day as {SOURCE_DAY} from generate_series(timestamp '{first}', timestamp '{last}', interval '1 day') as day
""",
        MODEL: f"""{{{{ config(
    materialized='incremental', incremental_strategy='microbatch', event_time='{DAY}', unique_key='{DAY}', batch_size='day', begin='{first}'
) }}}}
select {SOURCE_DAY} as {DAY}, '{{{{ invocation_id }}}}' as run, clock_timestamp() as at, pg_sleep({sleep})::text as slept
from {{{{ ref('{SOURCE}') }}}}
""",
    }


def rows(trial: Trial) -> list[Filled]:
    """The rows of the model's table; none while there is none."""
    found = (trial.warehouse(f"select {DAY}::date, run, at from {table} order by 1;") for table in trial.tables(DAY))
    return [Filled(*line.split("|")) for text in found for line in text.splitlines()]


def days(found: Iterable[Filled]) -> set[str]:
    """Their days."""
    return {row.day for row in found}


def complete(found: Sequence[Filled]) -> bool:
    """Whether all days are filled, each once."""
    return len(found) == len(days(found)) == DAYS


def count(found: Sequence[Filled]) -> str:
    """How many days are filled, in words."""
    return f"{len(days(found))} of {DAYS} days there" + (", some more than once" if len(found) > len(days(found)) else "")


def struck(run: Typed | None, ended: Sequence[float | None], found: Sequence[Filled]) -> tuple[str, bool | None]:
    """The verdict on a backfill that was killed, and whether it is good: it ends, and does not report success with days left out.

    None if the command does not know how it ended.

    Args:
        run: the command; None if it did not end.
        ended: when the command, the run and dbt had ended.
        found: the rows at that time.
    """
    if run is None or None in ended:
        return f"the run does not end; {count(found)}", False
    if run.code not in ENDS:
        return f"the command ends with exit code {run.code}; {count(found)}", None
    return f"{ENDS[run.code]}; {count(found)}", bool(run.code) or complete(found)


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return (
        f"Killed half way through {DAYS} days, a backfill is complete again after {report.ranking(COMPLETE)}, and the days that were filled"
        f" a second time are {report.ranking(AGAIN)}."
    )


SECTION = Section(
    "backfill",
    "Backfill",
    (
        Scenario("seven days", filled, (FILLED, RUNS), 25, "full"),
        Scenario("seven days, killed half way", killed, (KILLED, COMPLETE, AGAIN), 120, "full"),
    ),
    sentence,
)
