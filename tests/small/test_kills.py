"""kill -9 of each process of each orchestrator during a run: the run ends or continues, dbt never runs twice, and the next run works."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from .. import runs
from ..interruptions import ended, typed, wait_for_health
from ..stacks import command_line, mostly_long, slow_model, wait_until

SECONDS = 15  # how long the model takes that is being built at the time of the kill
SLOW = runs.SLOW.format(SECONDS)

SERVICES = {
    "airflow": ["airflow-api", "airflow-scheduler", "airflow-dag-processor"],
    "dagster": ["dagster-code", "dagster-webserver", "dagster-daemon"],
    "prefect": ["prefect-server", "prefect-worker"],
}
# Child processes of the services, by a word of their command lines: the one that executes the run, and the warm dbt.
CHILDREN = {
    "airflow": {"warm dbt": "--serve"},
    "dagster": {"warm dbt": "--serve", "server of the code": "api grpc"},
    "prefect": {"flow run": "prefect.engine"},
}
SHORT = "dagster-code"  # it executes the whole run; the long form kills every process of all three orchestrators
KILLS = [
    pytest.param(name, kill, marks=() if kill == SHORT else pytest.mark.long)
    for name in SERVICES
    for kill in (*SERVICES[name], *CHILDREN[name])
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the processes are found by Linux's own data on them")


@pytest.mark.parametrize(("name", "victim"), KILLS, ids=lambda word: word.replace(" ", "-"))
def test_a_killed_process_leaves_no_run_hanging(stack, reference, name, victim) -> None:
    stack.on(name)
    with stack.edited("models/slow.sql", slow_model(SECONDS, ["last"])):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(SLOW) == "1", 120)
        assert run.poll() is None
        find(stack, name, victim).kill()
        watch(stack, SECONDS)  # the model that was being built would end within this time
        stack.invoke("up", "--orch", name)  # which Docker does by itself
        watch(stack, 150, until=lambda: run.poll() is not None)  # Airflow's default would leave a killed scheduler's tasks alone for 300 s
        assert run.poll() is not None, "the run neither ended nor continued"
        code, out = ended(run)
        wait_until(lambda: runs.ask_runs(stack, "active_runs") == [] or int(stack.ask(SLOW)) > 1, 150)
        assert int(stack.ask(SLOW)) <= 1
    # 10: the killed service is the one that `invoke run` queries.
    assert code in (0, 1, 10), out
    if code == 1:
        assert "daily ended with failure on" in out
    stack.invoke("run")
    assert stack.hashes() == reference


def test_a_killed_code_server_of_dagster_is_restarted(stack, reference) -> None:
    stack.on("dagster")
    find(stack, "dagster", "server of the code").kill()
    wait_until(lambda: {service["health"] for service in stack.status()["services"]} != {"healthy"}, 60)
    assert wait_for_health(stack) == "dagster"
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.parametrize("name", mostly_long(SERVICES, "dagster"))
def test_a_run_succeeds_after_a_restart_of_postgres(stack, reference, name) -> None:
    stack.on(name)
    stack.invoke("run")
    server = stack.root("postgres")
    server.send_signal(signal.SIGINT)  # a fast shutdown, as when its container is restarted
    server.wait(60)
    stack.invoke("up", "--orch", name)
    stack.invoke("run")
    assert stack.hashes() == reference


def watch(stack, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Assert for ``seconds``, or until ``until()`` holds, that no two dbt work at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        assert int(stack.ask(SLOW)) <= 1
        time.sleep(0.5)  # between two queries


def find(stack, name: str, victim: str) -> psutil.Process:
    """The process to kill."""
    if victim in SERVICES[name]:
        return stack.root(victim)
    word = CHILDREN[name][victim]
    family = [child for service in SERVICES[name] for child in stack.root(service).children(recursive=True)]
    found = [process for process in family if word in " ".join(command_line(process))]
    assert found, [command_line(process) for process in family]
    return max(found, key=lambda process: (process.create_time(), -process.pid)) if victim != "warm dbt" else found[0]
