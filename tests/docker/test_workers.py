"""Workers: the same DAGs, assets and flows on any number of them; one that is killed or cut off leaves no run hanging."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from switchyard.settings import assign

from .. import runs
from ..interruptions import ended, typed
from ..stacks import slow_model, wait_until

SECONDS = 20  # how long the model takes that is being built at the time
SLOW = runs.SLOW.format(SECONDS)
WORKER = {"airflow": "airflow-worker", "dagster": "dagster-worker", "prefect": "prefect-worker"}
# Seconds that a run may take to end without its worker: Prefect's shortest heartbeat is 30 s, and a run may miss two.
NOTICED = {"airflow": 60, "dagster": 60, "prefect": 150}
VICTIMS = {
    "airflow": ["redis", "airflow-scheduler"],
    "dagster": ["redis", "dagster-daemon"],
    "prefect": ["prefect-server"],
}


@pytest.fixture(scope="module", autouse=True)
def alone(stack) -> Iterator[None]:
    """Remove the workers after the last test here; the other tests have none."""
    yield
    stack.invoke("down", "--force")
    assign(stack.folder, "WORKERS", "0")


def workers(stack, name: str) -> list[str]:
    """The containers of the workers."""
    return sorted(stack.ours("ps", "{{.Names}}", "--filter", f"label=com.docker.compose.service={WORKER[name]}"))


def on(stack, name: str, number: int) -> None:
    """Start an orchestrator with ``number`` workers."""
    if stack.status()["orchestrator"] not in (name, None):
        stack.invoke("down", "--force")
    stack.invoke("up", "--orch", name, "--workers", str(number))
    assert len(workers(stack, name)) == number


@contextmanager
def under_way(stack) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A run whose last model is being built, and the container of its dbt."""
    with stack.edited("models/slow.sql", slow_model(SECONDS)):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.sql(SLOW) == "1", 300)
        assert run.poll() is None, ended(run)
        (found,) = [service for service in stack.status()["services"] if service["runs"]]
        yield run, found["container"]


def ends(stack, run: subprocess.Popen[str], name: str, slow: str = SLOW) -> int:
    """Assert that no second dbt starts before the run has ended; returns the command's exit code."""
    deadline = time.monotonic() + NOTICED[name]
    while run.poll() is None and time.monotonic() < deadline:
        assert int(stack.sql(slow)) <= 1
        time.sleep(0.5)  # each query is a command
    assert run.poll() is not None, "the run neither ended nor continued"
    code, out = ended(run)
    wait_until(lambda: runs.idle(stack), 60)
    assert code in (0, 1, 10), out
    return code


def kill(container: str) -> None:
    """Kill -9 all processes of a container, as in a crash: Docker then restarts it."""
    name = container.strip("/")

    def began() -> str:
        return subprocess.check_output(["docker", "inspect", "--format", "{{.State.StartedAt}}", name], text=True)

    before = began()
    subprocess.run(["docker", "exec", name, "sh", "-c", "kill -9 -1"])  # this also kills the shell itself
    wait_until(lambda: began() != before, 60)


@pytest.mark.parametrize("name", [name if name == "dagster" else pytest.param(name, marks=pytest.mark.long) for name in WORKER])
def test_a_run_on_two_workers_has_the_result_of_one_machine(stack, reference, name) -> None:
    on(stack, name, 2)
    shown = stack.invoke("status").stdout
    assert {f"{WORKER[name]} {number}" for number in (1, 2)} <= set(re.findall(r"[\w-]+-worker \d", shown)), shown
    with under_way(stack) as (run, container):
        assert container in workers(stack, name)
        assert ended(run)[0] == 0
    stack.invoke("run")
    assert stack.hashes() == reference


def test_the_broker_asks_for_a_password_and_publishes_no_port(stack) -> None:
    on(stack, "dagster", 2)
    broker = stack.container("redis")
    asked = ["docker", "exec", "--env", "REDISCLI_AUTH=", broker["Name"].strip("/"), "redis-cli", "ping"]
    assert "NOAUTH" in subprocess.check_output(asked, text=True, stderr=subprocess.STDOUT)
    assert broker["HostConfig"]["PortBindings"] in (None, {})


@pytest.mark.long
@pytest.mark.parametrize("name", WORKER)
def test_a_killed_worker_leaves_no_run_hanging(stack, reference, name) -> None:
    on(stack, name, 2)
    with under_way(stack) as (run, container):
        kill(container)
        ends(stack, run, name)
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
@pytest.mark.parametrize("name", WORKER)
def test_a_worker_that_is_cut_off_for_a_while_leaves_no_run_hanging(stack, reference, name) -> None:
    on(stack, name, 2)
    (network,) = stack.ours("network ls", "{{.Name}}")
    with under_way(stack) as (run, container):
        subprocess.run(["docker", "network", "disconnect", network, container], check=True)
        try:
            ends(stack, run, name)
            stack.invoke("run")  # on the other worker
        finally:
            subprocess.run(["docker", "network", "connect", "--alias", WORKER[name], network, container], check=True)
    wait_until(lambda: {service["health"] for service in stack.status()["services"]} == {"healthy"}, 180)
    processes = subprocess.check_output(["docker", "top", container, "-eo", "pid,args"], text=True).splitlines()
    assert [line for line in processes if " build" in line or "prefect.engine" in line] == []
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
@pytest.mark.parametrize(("name", "victim"), [(name, victim) for name, victims in VICTIMS.items() for victim in victims])
def test_a_killed_broker_scheduler_or_server_leaves_no_run_hanging(stack, reference, name, victim) -> None:
    on(stack, name, 2)
    with under_way(stack) as (run, _):
        kill(stack.container(victim)["Name"])
        ends(stack, run, name)
    wait_until(lambda: {service["health"] for service in stack.status()["services"]} == {"healthy"}, 180)
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
@pytest.mark.parametrize("name", WORKER)
def test_workers_come_and_go_during_a_run(stack, reference, name) -> None:
    on(stack, name, 2)
    with under_way(stack) as (run, container):
        stack.invoke("scale", "5")
        assert len(workers(stack, name)) == 5
        assert container in workers(stack, name)
        stack.invoke("scale", "1")
        assert len(workers(stack, name)) == 1
        ends(stack, run, name)
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
def test_a_worker_deletes_old_logs_when_it_starts(stack) -> None:
    """On another machine, nothing else does."""
    on(stack, "airflow", 1)
    (worker,) = workers(stack, "airflow")
    old = "/opt/airflow/logs/dag_id=deleted/run_id=old"

    def inside(script: str) -> str:
        return subprocess.check_output(["docker", "exec", worker, "sh", "-ec", script], text=True)

    inside(f"mkdir -p {old} && touch -d '40 days ago' {old}")
    subprocess.run(["docker", "restart", worker], check=True)
    wait_until(lambda: inside(f"test -e {old} || echo deleted") == "deleted\n", 60)
