"""Runs and their results: queries to a stack, and the bodies of the tests in `tests/small`, on its project."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .interruptions import ended, read_until, typed
from .stacks import ROOT, Stack, slow_model, wait_until

SLOW_MODEL = slow_model(120, ["last"])
SLOW = (
    "select count(*) from pg_stat_activity where usename = 'dbt' and query like '%pg_sleep({})%' and state = 'active'"
    " and pid <> pg_backend_pid()"
)
SLOW_QUERIES = SLOW.format(120)
DBT_SESSIONS = "select count(*) from pg_stat_activity where application_name = 'dbt'"

JOBS = """\
jobs:
  daily: {dbt: build}
  job: {dbt: run --select last}
  dbt: {dbt: run --select last}
  dbt_job: {dbt: build}
"""

ASK_RUNS = """
import dataclasses, json, sys, invoke, tasks
from switchyard import pipeline
runs = getattr(pipeline, sys.argv[1])(tasks.runtime_of(invoke.Context()))
print(json.dumps([dataclasses.asdict(run) for run in runs]))
"""
COUNT_RUNS = """
import invoke, tasks
from switchyard import errors, pipeline
try:
    print(len(pipeline.active_runs(tasks.runtime_of(invoke.Context()))))
except errors.ApiUnusable:
    print("no answer")
"""


def ask_runs(stack: Stack, function: str) -> list[dict[str, str]]:
    """The runs that a function of `switchyard.pipeline` returns."""
    return json.loads(stack.run([stack.python, "-c", ASK_RUNS, function], quiet=True).stdout)


def idle(stack: Stack) -> bool:
    """Whether no run is in progress; False while the orchestrator does not answer."""
    return stack.run([stack.python, "-c", COUNT_RUNS], quiet=True).stdout.strip() == "0"


@contextmanager
def kept_waiting(stack: Stack, *args: str) -> Iterator[str]:
    """Start `invoke ARGS` while a session locks the table `last`; yield its output up to the message that it waits. It then succeeds."""
    locks = "select count(*) from pg_locks where relation = 'last'::regclass and mode = 'AccessExclusiveLock' and granted"
    argv = [stack.python, "-m", "invoke", "psql"]
    with subprocess.Popen(argv, cwd=stack.folder, env=stack.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as session:
        session.stdin.write("begin; lock table last; select 'mine';\n")
        session.stdin.flush()
        wait_until(lambda: stack.sql(locks) == "1")
        command = typed(stack, *args)
        try:
            yield read_until(command, "waits for a lock")
        finally:
            session.stdin.close()
            assert ended(command)[0] == 0


def canceled_run(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """A run in progress is shown, and a cancel ends all of it: in the orchestrator, in dbt, on the server, and the command that waits.

    Its retry leaves out no node that dbt had not reached.
    """
    stack.on(name)
    assert ask_runs(stack, "active_runs") == []
    with (
        stack.edited("models/slow.sql", SLOW_MODEL),
        stack.edited("models/after_slow.sql", "select * from {{ ref('slow') }}\n"),
        subprocess.Popen(
            [stack.python, "-m", "invoke", "run"],
            cwd=stack.folder, env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **stack.as_account,
        ) as command,
    ):  # fmt: skip
        try:
            wait_until(lambda: command.poll() is not None or stack.ask(SLOW_QUERIES) == "1", 120)
            (run,) = ask_runs(stack, "active_runs")
            assert run["url"] in stack.invoke("run", "--failed", code=13).stderr
            assert run["url"] in stack.invoke("dbt", "run", code=13).stderr  # which would write to the same tables
            assert run["url"] in stack.invoke("dbt", "--log-level", "debug", "run", code=13).stderr
            assert "small.slow" in stack.invoke("dbt", "ls", "--select", "slow").stdout
            canceled = ask_runs(stack, "cancel_runs")
            wait_until(lambda: stack.ask(DBT_SESSIONS) == "0")
            assert ask_runs(stack, "active_runs") == []
            output, _ = command.communicate(timeout=30)
        finally:
            command.kill()
        (stack.dbt / "models/slow.sql").write_text("select 1 as one\n")
        again = record(stack, "--failed")
        assert (again["job"], again["state"]) == ("daily", "success"), again
        assert "model.small.after_slow" in {node["unique_id"] for node in again["nodes"]}
    stack.invoke("sql", "drop view after_slow, slow")
    assert canceled == [run]
    assert run["job"] == "daily"
    assert run["url"] in output
    assert "Error: daily ended with canceled on" in output
    assert "Traceback" not in output
    assert command.returncode == 1
    assert stack.hashes() == reference


RECORD = """
import dataclasses, json, sys, invoke, tasks
from switchyard import pipeline
runtime = tasks.runtime_of(invoke.Context())
target = runtime.orchestrators[runtime.active()]
run = pipeline.follow(sys.argv[1], lambda on_line: runtime.trigger(target, sys.argv[1:], on_line), lambda event: None)
print(json.dumps(dataclasses.asdict(run)))
"""


def record(stack: Stack, job: str = "daily") -> dict[str, Any]:
    """Run a job, and return its result, the fields of a `switchyard.pipeline.Run`."""
    return json.loads(stack.run([stack.python, "-c", RECORD, job]).stdout.splitlines()[-1])


def outcome(nodes: list[dict[str, Any]]) -> dict[str, tuple[str, int | None, bool]]:
    """Each node's status, rows, and whether there is a message: these are equal in every orchestrator."""
    return {node["unique_id"]: (node["status"], node["rows"], bool(node["message"])) for node in nodes}


def two_runs_take_turns(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """Two jobs started at once: the second prints what it waits for, and only one dbt works at any moment."""
    stack.on(name)
    with stack.edited("models/slow.sql", slow_model(20, ["last"])):
        first = typed(stack, "run")
        wait_until(lambda: first.poll() is not None or stack.ask(SLOW.format(20)) == "1", 120)
        (running,) = ask_runs(stack, "active_runs")
        second = typed(stack, "run", "--job", "full_refresh")
        most = 0
        while any(command.poll() is None for command in (first, second)):
            most = max(most, int(stack.ask(SLOW.format(20))))
            time.sleep(0.5)  # between two queries
        ends = [ended(command) for command in (first, second)]
    assert [code for code, _ in ends] == [0, 0]
    assert most == 1
    assert running["url"] in ends[0][1]
    assert "waits for daily" in ends[1][1]
    assert stack.hashes() == reference


def edited_jobs(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """`invoke up` loads new jobs under any name, even these, which the code of an orchestrator's definitions uses itself."""
    stack.on(name)
    with stack.edited("orchestration.yml", JOBS):
        stack.invoke("up", "--orch", name)
        for job in ("job", "dbt", "dbt_job"):
            stack.invoke("run", "--job", job)
    stack.invoke("up", "--orch", name)
    stack.invoke("run")
    assert stack.hashes() == reference


def edits_at_any_time(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """A model is edited before, during and after a run: each next run uses the newest version, and nothing hangs."""
    stack.on(name)
    model = "models/edited.sql"
    with stack.edited("models/slow.sql", slow_model(4, ["last"])), stack.edited(model, "select 1 as version\n"):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(SLOW.format(4)) == "1", 120)
        (stack.dbt / model).write_text("select 2 as version\n")
        assert ended(run)[0] == 0
        for version in ("3", "4"):
            (stack.dbt / model).write_text(f"select {version} as version\n")
            stack.invoke("run")
            assert stack.sql("select version from edited") == version
    stack.invoke("run")
    stack.invoke("sql", "drop view edited; drop table slow")
    assert stack.hashes() == reference


def failed_again(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """`invoke run --failed` runs only what failed and what was skipped, with its tests."""
    stack.on(name)
    stack.invoke("run", "--job", "smoke")
    assert "Nothing to run again" in stack.invoke("run", "--failed").stdout
    with (
        stack.edited("models/last.sql", "select no_such_column from {{ ref('first') }}\n"),
        stack.edited("models/never_three.sql", "select 3 as three\n"),
        stack.edited("tests/three.sql", "select * from {{ ref('never_three') }} where three <> 4\n"),
        stack.edited("models/alone.sql", "select 1 as one\n"),
        stack.edited("tests/of_two.sql", "select one from {{ ref('alone') }} where one <> (select min(1) from {{ ref('last') }})\n"),
    ):
        failed = record(stack)
        assert failed["state"] == "failure"
        left = {node["unique_id"] for node in failed["nodes"] if node["status"] in ("error", "fail", "skipped")}
        assert "model.small.last" in left
        # of_two reads two models that do not depend on each other.
        assert {"test.small.three", "test.small.of_two"} <= {unique_id.removesuffix(".sql") for unique_id in left}
        assert any(unique_id.startswith("test.small.unique_last") for unique_id in left)
        again = record(stack, "--failed")  # it is not fixed yet
        assert again["state"] == "failure"
        (stack.dbt / "tests/three.sql").write_text("select * from {{ ref('never_three') }} where three <> 3\n")
        (stack.dbt / "models/last.sql").write_text((ROOT / "tests/projects/small/models/last.sql").read_text(encoding="utf-8"))
        mended = record(stack, "--failed")
        assert (mended["job"], mended["state"]) == ("daily", "success"), mended
        ran = {node["unique_id"] for node in mended["nodes"]}
        assert left <= ran
        assert not any(unique_id.startswith("seed.") for unique_id in ran)
        assert "model.small.first" not in ran
        assert {node["status"] for node in mended["nodes"]} <= {"success", "pass"}
    assert "Nothing to run again" in stack.invoke("run", "--failed").stdout
    stack.invoke("sql", "drop view never_three, alone")
    assert stack.hashes() == reference


def renamed_model(stack: Stack, name: str) -> None:
    """`invoke run --failed` succeeds after the failed model was renamed, and after a failed test got another argument."""
    stack.on(name)
    tested = "models: [{name: alone, columns: [{name: one, data_tests: [accepted_values: {arguments: {values: [%d]}}]}]}]\n"
    with (
        stack.edited("models/alone.sql", "select 1 as one\n"),
        stack.edited("models/alone.yml", tested % 2),
        stack.edited("models/old_name.sql", "select no_such_column\n"),
    ):
        assert record(stack)["state"] == "failure"
        (stack.dbt / "models/old_name.sql").write_text("{{ config(enabled=false) }} select 1 as one\n")
        (stack.dbt / "models/alone.yml").write_text(tested % 1)
        with stack.edited("models/new_name.sql", "select 1 as one\n"):
            mended = record(stack, "--failed")
    assert mended["state"] == "success", mended
    ran = {node["unique_id"] for node in mended["nodes"]}
    assert "model.small.new_name" in ran
    assert any(unique_id.startswith("test.small.accepted_values_alone") for unique_id in ran)
    stack.invoke("sql", "drop view alone, new_name")


def options_of_a_run(stack: Stack, name: str) -> None:
    """A selection, variables and a full refresh apply to one run and its retry with `--failed`, and to no other run."""
    stack.on(name)
    model = "{{ config(materialized='incremental') }}\nselect {{ var('number', 1) }} as number, {{ flags.FULL_REFRESH }} as fresh"
    with stack.edited("models/asked.sql", f"{model}, no_such_column\n"):
        failed = stack.invoke("run", "--select", "asked", "--vars", "{number: 7}", "--full-refresh", code=1)
        assert "no_such_column" in failed.stderr
        assert len(nodes_of(failed.stdout)) == 1
        (stack.dbt / "models/asked.sql").write_text(model)
        again = stack.invoke("run", "--failed")
        assert nodes_of(again.stdout) == ["success model asked"]
        assert stack.sql("select number, fresh from asked") == "7\tt"
        plain = stack.invoke("run", "--select", "asked")
        assert nodes_of(plain.stdout) == ["success model asked"]
        assert stack.sql("select number, fresh from asked order by 1") == "1\tf\n7\tt"
    stack.invoke("sql", "drop table asked")
    nothing = stack.invoke("run", "--select", "no_such_node").stdout
    assert "no node of the project is selected" in nothing
    assert "succeeded" not in nothing
    logs = typed(stack, "logs", "--tail", "2000").communicate(timeout=60)[0]  # with tracebacks of what failed before
    assert "| " in logs
    assert "\x1b" not in logs
    refused = stack.invoke("run", "--job", "smoke", "--full-refresh", code=2)
    assert "full_refresh" in refused.stderr


def nodes_of(out: str) -> list[str]:
    """Status, kind and name of each node in the output of `invoke run`."""
    return [" ".join(words[:3]) for words in map(str.split, out.splitlines()) if words[1:2] and words[1] in ("model", "test", "seed")]


def interrupted_command(stack: Stack, name: str, reference: dict[str, tuple[int, str]], number: signal.Signals) -> None:
    """The run continues, and the interrupted command prints where, and how to cancel it."""
    stack.on(name)
    with stack.edited("models/slow.sql", SLOW_MODEL):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(SLOW_QUERIES) == "1", 120)
        run.send_signal(number)
        code, out = ended(run)
        (active,) = ask_runs(stack, "active_runs")
        canceled = stack.invoke("run", "--cancel").stdout
        wait_until(lambda: stack.ask(DBT_SESSIONS) == "0")
    assert code == 130
    assert f"Interrupted. The run continues: {active['url']}" in out
    assert "invoke run --cancel" in out
    assert f"daily is cancelled: {active['url']}" in canceled
    assert "no run is in progress" in stack.invoke("run", "--cancel").stdout
    assert stack.hashes() == reference
