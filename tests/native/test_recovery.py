"""Services and commands that are killed: the next command recovers, nothing is lost, and no other program is touched."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from switchyard.runtimes.native import launch

from ..interruptions import read_until, typed
from ..stacks import DAGSTER, mostly_long, wait_until


@pytest.mark.parametrize("name", DAGSTER)
def test_killed_processes_are_reported_and_the_next_command_recovers(stack, reference, name) -> None:
    stack.on(name)
    service, *others = (entry["name"] for entry in stack.status()["services"] if entry["orchestrator"])
    kept = {other: stack.root(other).pid for other in others}
    stack.root(service).kill()
    assert stack.states()[service][0] == "crashed"
    stack.invoke("up", "--orch", name)
    # This takes a while: Dagster's page reloads the code only when it notices the new code server.
    wait_until(lambda: set(stack.states().values()) == {("running", "healthy")}, 90)
    assert {other: stack.root(other).pid for other in others} == kept
    stack.invoke("run", "--job", "smoke")
    assert stack.hashes() == reference

    roots = [stack.root(entry["name"]) for entry in stack.status()["services"] if entry["orchestrator"]]
    for child in [child for root in roots for child in root.children(recursive=True)][:1]:  # Prefect's services have none
        child.kill()
        stack.invoke("up", "--orch", name)
        wait_until(lambda: set(stack.states().values()) == {("running", "healthy")}, 90)
    stack.invoke("down")
    assert stack.processes() == []


@pytest.mark.long
def test_up_killed_in_the_middle(stack, reference) -> None:
    stack.invoke("down")
    stack.kill_in_the_middle("up", "--orch", "dagster", when=lambda: stack.started("dagster-code"))
    assert stack.status()["orchestrator"] == "dagster"
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference


@pytest.mark.long
def test_switch_killed_in_the_middle(stack, reference) -> None:
    stack.on("dagster")
    stack.kill_in_the_middle("switch", "prefect", when=lambda: stack.started("prefect-server"))
    assert stack.status()["orchestrator"] == "prefect"
    stack.invoke("switch", "dagster")
    assert {entry["orchestrator"] for entry in stack.status()["services"]} == {None, "dagster"}
    assert stack.hashes() == reference


def test_a_process_that_reuses_the_id_of_an_old_record_is_left_alone(stack) -> None:
    stack.invoke("down")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        facts = {"service": "dagster-code", "orchestrator": "dagster", "pid": stranger.pid, "ports": {}, "fingerprint": ""}
        created = psutil.Process(stranger.pid).create_time() - 60
        birth = launch.birth(os.getpid())
        record = stack.folder / ".stack" / "native" / "run" / "dagster-code.json"
        record.write_text(json.dumps({**facts, "created": created, "birth": birth}))
        # PostgreSQL's own file with its process id, too.
        note = stack.cluster / "postmaster.pid"
        note.write_text(f"{stranger.pid}\n{note.parent}\n{int(created)}\n{stack.ports['POSTGRES_PORT']}\n\n")
        assert stack.states() == {"postgres": ("crashed", None), "dagster-code": ("crashed", None)}
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("down")
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("key", ["POSTGRES_PORT", "DAGSTER_PORT"])
def test_a_port_held_by_another_program_is_reported_with_its_key(stack, key) -> None:
    stack.invoke("down")
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", stack.ports[key]))
        server.listen()
        done = stack.invoke("up", "--orch", "dagster", code=9)
    assert f"Port {stack.ports[key]} ({key}) is in use" in done.stderr
    assert f"process {os.getpid()}" in done.stderr
    assert stack.processes() == []


def test_an_interrupt_ends_only_logs(stack) -> None:
    stack.on("dagster")
    with typed(stack, "logs", "--follow", "--service", "dagster-webserver") as logs:
        assert read_until(logs, "\n").startswith("dagster-webserver  | ")
        logs.send_signal(signal.SIGINT)
        assert logs.wait(60) == 130
    assert set(stack.states().values()) == {("running", "healthy")}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="another boot time needs a mount namespace of Linux")
@pytest.mark.parametrize("seconds", mostly_long([-7200, 60], 60))
def test_a_changed_clock_has_no_effect(stack, tmp_path, seconds) -> None:
    stack.on("dagster")
    (tmp_path / "stat").write_text(
        re.sub(r"(?<=^btime )\d+", lambda found: str(int(found[0]) + seconds), Path("/proc/stat").read_text(), flags=re.M)
    )

    def invoke(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        script = 'mount --bind "$0" /proc/stat && exec "$@"'
        return stack.run(["unshare", "--mount", "sh", "-c", script, str(tmp_path / "stat"), stack.python, "-m", "invoke", *words], code)

    assert {(entry["state"], entry["health"]) for entry in json.loads(invoke("status", "--json").stdout)["services"]} == {
        ("running", "healthy")
    }
    before = stack.processes()
    assert "Dagster is active" in invoke("up", "--orch", "prefect", code=4).stderr
    invoke("up", "--orch", "dagster")
    assert {process.pid for process in stack.processes()} >= {process.pid for process in before if process.is_running()}
    invoke("run", "--job", "smoke")
    invoke("down")
    assert stack.processes() == []
