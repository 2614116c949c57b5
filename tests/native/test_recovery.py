"""What is killed in the middle of things: the next command recovers, nothing is lost, and no stranger is touched."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from ..stacks import wait_until


@pytest.mark.parametrize("name", ["dagster", "airflow", "prefect"])
def test_killed_processes_are_told_and_the_next_command_recovers(stack, reference, name) -> None:
    stack.on(name)
    service = next(entry["name"] for entry in stack.status()["services"] if entry["orchestrator"])
    stack.root(service).kill()
    assert stack.states()[service][0] == "crashed"
    stack.invoke("up", "--orch", name)
    assert set(stack.states().values()) == {("running", "healthy")}
    stack.invoke("run", "--job", "smoke")
    assert stack.hashes() == reference

    roots = [stack.root(entry["name"]) for entry in stack.status()["services"] if entry["orchestrator"]]
    for child in [child for root in roots for child in root.children(recursive=True)][:1]:  # Prefect has none
        child.kill()
        stack.invoke("up", "--orch", name)
        assert set(stack.states().values()) == {("running", "healthy")}
    assert len(stack.processes()) >= len(roots)
    stack.invoke("down")
    assert stack.processes() == []


def test_a_killed_postgres_loses_nothing(stack, reference) -> None:
    stack.on("dagster")
    stack.root("postgres").kill()
    wait_until(lambda: stack.states()["postgres"][0] == "crashed")
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference
    stack.invoke("run", "--job", "smoke")


def test_up_killed_in_the_middle(stack, reference) -> None:
    stack.invoke("down")
    stack.kill_in_the_middle("up", "--orch", "dagster", when=lambda: stack.started("dagster-code"))
    assert stack.status()["orchestrator"] == "dagster"
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference


def test_switch_killed_in_the_middle(stack, reference) -> None:
    stack.on("dagster")
    stack.kill_in_the_middle("switch", "prefect", when=lambda: stack.started("prefect-server"))
    assert stack.status()["orchestrator"] == "prefect"
    stack.invoke("switch", "dagster")
    assert {entry["orchestrator"] for entry in stack.status()["services"]} == {None, "dagster"}
    assert stack.hashes() == reference


def test_a_stranger_with_the_id_of_an_old_record_is_left_alone(stack) -> None:
    stack.invoke("down")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        facts = {"service": "dagster-code", "orchestrator": "dagster", "pid": stranger.pid, "ports": {}, "fingerprint": ""}
        created = psutil.Process(stranger.pid).create_time() - 60
        record = stack.folder / ".stack" / "native" / "run" / "dagster-code.json"
        record.write_text(json.dumps({**facts, "created": created}))
        # PostgreSQL's own note of its process id as well.
        note = stack.cluster / "postmaster.pid"
        note.write_text(f"{stranger.pid}\n{note.parent}\n{int(created)}\n{stack.ports['POSTGRES_PORT']}\n\n")
        assert stack.states() == {"postgres": ("crashed", None), "dagster-code": ("crashed", None)}
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("down")
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("key", ["POSTGRES_PORT", "DAGSTER_PORT"])
def test_a_port_held_by_a_stranger_is_named_with_its_key(stack, key) -> None:
    stack.invoke("down")
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", stack.ports[key]))
        server.listen()
        done = stack.invoke("up", "--orch", "dagster", code=9)
    assert f"Port {stack.ports[key]} ({key}) is in use" in done.stderr
    assert f"process {os.getpid()}" in done.stderr
    assert stack.processes() == []


def test_an_interrupt_ends_logs_and_nothing_else(stack) -> None:
    stack.on("dagster")
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "logs", "--follow", "--service", "dagster-webserver"],
        cwd=stack.folder, env=stack.env, stdout=subprocess.PIPE, text=True,
    ) as logs:  # fmt: skip
        assert "dagster-webserver  | " in logs.stdout.readline()
        logs.send_signal(signal.SIGINT)
        assert logs.wait(10) == 130
    assert set(stack.states().values()) == {("running", "healthy")}
