"""What becomes of a run in progress, in either runtime: the bodies of tests in `tests/docker` and `tests/native`."""

from __future__ import annotations

import json
import subprocess

from .stacks import Stack, slow_model, wait_until

SLOW_MODEL = slow_model(120)
SLOW_QUERIES = "select count(*) from pg_stat_activity where query like '%pg_sleep(120)%' and state = 'active' and pid <> pg_backend_pid()"
DBT_SESSIONS = "select count(*) from pg_stat_activity where application_name = 'dbt'"

ASK_RUNS = """
import dataclasses, json, sys, invoke, tasks
from stack import pipeline
runs = getattr(pipeline, sys.argv[1])(tasks.runtime_of(invoke.Context()))
print(json.dumps([dataclasses.asdict(run) for run in runs]))
"""


def ask_runs(stack: Stack, function: str) -> list[dict[str, str]]:
    """What a function of `stack.pipeline` says of the runs in progress."""
    return json.loads(stack.run([stack.python, "-c", ASK_RUNS, function]).stdout)


def canceled_run(stack: Stack, name: str, reference: dict[str, tuple[int, str]]) -> None:
    """A run in progress is told, and canceled as a whole: in the orchestrator, in dbt, on the server, and for who waits for it."""
    stack.on(name)
    assert ask_runs(stack, "active_runs") == []
    with (
        stack.edited("models/intermediate/slow.sql", SLOW_MODEL),
        subprocess.Popen(
            [stack.python, "-m", "invoke", "run"],
            cwd=stack.folder, env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **stack.as_account,
        ) as command,
    ):  # fmt: skip
        try:
            wait_until(lambda: command.poll() is not None or stack.sql(SLOW_QUERIES) == "1", 120)
            (run,) = ask_runs(stack, "active_runs")
            canceled = ask_runs(stack, "cancel_runs")
            assert stack.sql(DBT_SESSIONS) == "0"
            assert ask_runs(stack, "active_runs") == []
            told, _ = command.communicate(timeout=30)
        finally:
            command.kill()
    assert canceled == [run]
    assert run["job"] == "daily"
    assert run["url"] in told
    assert "Error: daily ended with canceled on" in told
    assert "Traceback" not in told
    assert command.returncode == 1
    stack.invoke("run", "--job", "smoke")
    assert stack.hashes() == reference
