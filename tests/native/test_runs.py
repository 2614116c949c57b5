"""Runs in progress, without Docker."""

import sys

import psutil
import pytest

from .. import runs
from ..interruptions import ended, typed
from ..stacks import command_line, wait_until


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_a_run_is_told_and_canceled(stack, reference, name) -> None:
    runs.canceled_run(stack, name, reference)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each flow run starts a Python of its own")
def test_a_flow_run_is_forked_and_ends_with_its_worker(stack, reference) -> None:
    stack.on("prefect")
    worker = stack.root("prefect-worker")
    with stack.edited("models/intermediate/slow.sql", runs.SLOW_MODEL):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.sql(runs.SLOW_QUERIES) == "1", 120)
        forked = worker.children(recursive=True)
        assert not [process for process in forked if "prefect.engine" in command_line(process)]
        worker.kill()
        assert psutil.wait_procs(forked, timeout=60)[1] == []
        wait_until(lambda: stack.sql(runs.SLOW_QUERIES) == "0")
        stack.invoke("up", "--orch", "prefect")
        code, out = ended(run)
    assert (code, "Error: daily ended with failure on Prefect" in out) == (1, True), out
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each run starts a Python of its own")
def test_a_run_of_dagster_is_forked_and_ends_with_its_code_server(stack, reference) -> None:
    stack.on("dagster")
    with stack.edited("models/intermediate/slow.sql", runs.SLOW_MODEL):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.sql(runs.SLOW_QUERIES) == "1", 120)
        family = [process for process in stack.root("dagster-code").children(recursive=True) if "grpc" in command_line(process)]
        # The newest: before the edit was loaded there was another server. Between the two is the process that forks.
        code_server, _, forked = sorted(family, key=psutil.Process.create_time)[-3:]
        dbt = forked.children(recursive=True)
        code_server.kill()
        assert dbt
        assert psutil.wait_procs([forked, *dbt], timeout=60)[1] == []
        wait_until(lambda: stack.sql(runs.SLOW_QUERIES) == "0")
        code, out = ended(run)
        stack.root("dagster-code").kill()
    assert (code, "Error: daily ended with failure on Dagster" in out) == (1, True), out
    stack.invoke("up", "--orch", "dagster")
    stack.invoke("run")
    assert stack.hashes() == reference
