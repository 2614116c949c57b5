"""The comparison's calculations for schedules, for a backfill, and for the cost of each further node."""

from __future__ import annotations

from datetime import date

import pytest

from bench import many
from bench.run import Typed
from compare import backfill, scheduling, speed
from compare.backfill import Filled
from compare.model import Found, Scenario
from compare.report import SCHEMA, Report
from compare.scheduling import Done
from rundbt import jobs
from switchyard.errors import StackError

WEEK = [Filled(f"2026-01-0{day}", "a", "t") for day in range(1, 8)]


def test_a_lag_is_from_the_full_minute_to_the_first_connection_after_it() -> None:
    connections = [90.0, 125.5, 126.0, 183.25, 184.0]
    assert scheduling.lags([120, 180], connections, [Done("each", 91.0, 94.0), Done("each", 127.0, 130.0), Done("each", 185.0, 188.0)]) == [
        5.5,
        3.25,
    ]


@pytest.mark.parametrize(
    "done",
    [
        pytest.param([], id="none"),
        pytest.param([Done("each", 127.0, 130.0), Done("each", 140.0, 143.0)], id="two"),
        pytest.param([Done("each", 118.0, 121.0), Done("each", 127.0, 130.0)], id="an earlier one is still running"),
        pytest.param([Done("each", 178.0, 181.0)], id="until the next"),
    ],
)
def test_no_lag_is_claimed_if_it_is_unclear_which_run_it_belongs_to(done) -> None:
    with pytest.raises(StackError, match="exactly one run"):
        scheduling.lags([120], [125.0], done)


def test_no_lag_without_a_connection() -> None:
    with pytest.raises(StackError, match="no connection"):
        scheduling.lags([120], [90.0], [Done("each", 127.0, 130.0)])


def test_no_lag_without_a_due_minute() -> None:
    with pytest.raises(StackError, match="no due minute"):
        scheduling.lags([], [125.0], [])


@pytest.mark.parametrize(
    ("other", "verdict", "good"),
    [(Done("each", 68.0, 71.0), "one after the other", None), (Done("each", 66.0, 69.0), "at the same time", False)],
)
def test_two_jobs_that_are_due_together_have_to_take_turns(other, verdict, good) -> None:
    found = scheduling.turns([Done("each", 65.0, 68.0), other], 60)
    assert (found.value, found.verdict, found.good) == (other.ended - 60, verdict, good)


@pytest.mark.parametrize(("moment", "minute"), [(120.0, 180), (179.9, 180), (180.1, 240)])
def test_the_minute_after(moment, minute) -> None:
    assert scheduling.following(moment) == minute


def test_the_scheduled_jobs_are_a_valid_file_of_a_project(tmp_path) -> None:
    (tmp_path / jobs.FILE).write_text(scheduling.JOBS.format(minute=7))
    found = jobs.read(tmp_path)
    assert {name: job.cron for name, job in found.items()} == {"daily": None, "each": "* * * * *", "once": "7 * * * *"}
    assert found["once"].dbt_args == ("run", "--select", "compare_once")
    assert scheduling.SQL.format(job="once").startswith("{{ config(materialized='incremental'")
    assert "select 'once' as compare_job, " in scheduling.SQL.format(job="once")


def test_a_backfill_is_complete_if_each_day_exists_once() -> None:
    assert backfill.complete(WEEK)
    assert not backfill.complete(WEEK[1:])
    assert not backfill.complete([*WEEK, Filled("2026-01-01", "b", "t")])
    assert backfill.count([*WEEK, Filled("2026-01-01", "b", "t")]) == "7 of 7 days there, some more than once"


@pytest.mark.parametrize(
    ("code", "ended", "rows", "verdict", "good"),
    [
        pytest.param(1, [1.0, 2.0], WEEK[:3], "the run fails; 3 of 7 days there", True, id="reported"),
        pytest.param(0, [1.0, 2.0], WEEK[:3], "the run succeeds; 3 of 7 days there", False, id="silently incomplete"),
        pytest.param(0, [1.0, 2.0], WEEK, "the run succeeds; 7 of 7 days there", True, id="completed by itself"),
        pytest.param(10, [1.0, 2.0], WEEK, "the command ends with exit code 10; 7 of 7 days there", None, id="out of sight"),
        pytest.param(None, [None, 2.0], WEEK[:3], "the run does not end; 3 of 7 days there", False, id="the command hangs"),
        pytest.param(1, [1.0, None], WEEK[:3], "the run does not end; 3 of 7 days there", False, id="dbt hangs"),
    ],
)
def test_a_backfill_that_is_killed_must_not_look_complete(code, ended, rows, verdict, good) -> None:
    run = None if code is None else Typed(0.0, 1.0, code, ())
    assert backfill.struck(run, ended, rows) == (verdict, good)


def test_the_models_of_a_backfill() -> None:
    found = backfill.texts(date(2026, 1, 1), date(2026, 1, 7), 2)
    assert "{{ config(materialized='table', event_time='compare_source_day') }}" in found[backfill.SOURCE]
    assert "timestamp '2026-01-01', timestamp '2026-01-07'" in found[backfill.SOURCE]
    assert "begin='2026-01-01'" in found[backfill.MODEL]
    assert "'{{ invocation_id }}' as run" in found[backfill.MODEL]
    assert "{{ ref('compare_days') }}" in found[backfill.MODEL]


def test_the_slope_is_that_of_the_nearest_line() -> None:
    assert speed.slope([(10, 1.2), (100, 3.0), (500, 11.0)]) == pytest.approx(0.02)
    assert speed.slope([(0, 0.0), (1, 3.0), (2, 0.0)]) == pytest.approx(0.0)


def test_the_points_of_the_rounds_become_one_line() -> None:
    made = Report({"schema": SCHEMA, "orchestrators": {"a": {"title": "A"}, "b": {"title": "B"}}, "rows": {}})
    made.declare(speed.SECTION, [Scenario("x", lambda _: iter(()), (speed.SLOPE,), 1)])
    for number, seconds in enumerate((3.0, 5.0, 4.0)):
        made.add(Found(speed.SLOPE.id, 1.0, parts={"points": [{"models": 10, "run": seconds, "dbt build": 1.0}]}), "a", number)
    ended = [{"models": 10, "run": 3.0, "dbt build": 1.0}, {"models": 100, "run": 9.0, "dbt build": 1.0}]
    made.add(Found(speed.SLOPE.id, why="with 500 models more: too slow", parts={"points": ended}), "b", 0)
    assert speed.curve(made, "a") == [(10, 3.0)]
    assert speed.curve(made, "b") == [(10, 2.0), (100, 8.0)]
    (picture,) = speed.pictures(made)
    assert list(picture["lines"]) == ["A", "B"]


def test_models_exist_only_inside_the_block(tmp_path) -> None:
    with many.more(tmp_path, 12):
        texts = {path.stem: path.read_text() for path in (tmp_path / "bench").iterdir()}
    assert len(texts) == 12
    assert "from generate_series(1, 100) as bench_number" in texts["bench_000"]
    assert "from {{ ref('bench_001') }} limit" in texts["bench_011"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bench").mkdir()
    with pytest.raises(StackError, match="has a folder"), many.more(tmp_path, 12):
        pass
