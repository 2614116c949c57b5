"""What must hold in both runtimes when a command is interrupted, too slow, or meets another one or a run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading

from bench.rig import kill

from .stacks import Stack, slow_model, wait_until


def typed(stack: Stack, *args: str, stdin: int | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start `invoke ARGS` without waiting for it; as in a terminal, it can be interrupted. ``stdin`` is a file descriptor."""

    def default_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "invoke", *args],
        cwd=stack.folder, env={**stack.env, **variables}, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=default_signals, start_new_session=True, **stack.as_account,
    )  # fmt: skip


def ended(command: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the command; returns its exit code and its output."""
    try:
        out, _ = command.communicate(timeout=300)
    finally:
        command.kill()
    print(out)
    assert not re.search("^Traceback", out, re.M), out  # dbt's own, after a killed run, is indented
    return command.returncode, out


def read_until(command: subprocess.Popen[str], text: str, seconds: float = 120) -> str:
    """The command's output up to the line with ``text``; after ``seconds``, the command is killed."""
    printed = ""
    limit = threading.Timer(seconds, kill, [command.pid])
    limit.start()
    try:
        while text not in printed:
            line = command.stdout.readline()
            assert line, f"{text!r} was not printed within {seconds} s:\n{printed}"
            printed += line
    finally:
        limit.cancel()
    return printed


def interrupted_switch(stack: Stack, reference: object, number: signal.Signals) -> None:
    """An interrupt in the middle of a switch rolls it back, and a second one does not disturb that."""
    stack.on("dagster")
    command = typed(stack, "switch", "prefect")
    wait_until(
        lambda: command.poll() is not None or stack.started("prefect-server"), 300
    )  # if this test runs alone, Prefect is installed first
    command.send_signal(number)
    wait_until(lambda: command.poll() is not None or stack.started("dagster-code"), 60)
    command.send_signal(number)
    code, out = ended(command)
    assert (code, "Interrupted. Dagster is active again." in out) == (130, True), out
    assert "Starting Dagster again" in out
    assert healthy(stack) == "dagster"
    assert stack.hashes() == reference


def switch_without_a_terminal(stack: Stack, reference: object) -> None:
    """A terminal that is closed in the middle of a switch rolls it back."""
    stack.on("dagster")
    mine, its = os.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "invoke", "switch", "prefect"],
        cwd=stack.folder, env=stack.env, stdin=its, stdout=its, stderr=its,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL), start_new_session=True, **stack.as_account,
    )  # fmt: skip
    os.close(its)
    threading.Thread(target=_read_all, args=[mine], daemon=True).start()
    wait_until(
        lambda: command.poll() is not None or stack.started("prefect-server"), 300
    )  # if this test runs alone, Prefect is installed first
    command.send_signal(signal.SIGHUP)
    os.close(mine)
    assert command.wait(300) == 130
    assert healthy(stack) == "dagster"
    assert stack.hashes() == reference


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def switch_that_takes_too_long(stack: Stack) -> None:
    """If the new orchestrator is still starting when the time is up, the old one is started again."""
    stack.on("dagster")
    done = stack.invoke("switch", "prefect", "--timeout", "1", code=12)
    assert "Prefect is still starting after 1 s. Dagster is active again." in done.stderr
    assert "invoke switch prefect --timeout 2" in done.stderr
    assert healthy(stack) == "dagster"


def second_up_continues(stack: Stack) -> None:
    """An `up` that ran out of time has not failed: the next one continues with the services that it started."""
    stack.invoke("down")
    before: dict[str, str] = {}
    for _ in range(10):  # at first, PostgreSQL itself may take longer
        output = stack.invoke("up", "--orch", "prefect", "--timeout", "1", code=12).stderr
        assert "still starting after 1 s" in output
        assert "invoke up --orch prefect" in output
        before = {service["name"]: service["id"] for service in stack.status()["services"]}
        if "prefect-server" in before:
            break
    assert "prefect-server" in before
    stack.invoke("up", "--orch", "prefect")
    after = {service["name"]: service["id"] for service in stack.status()["services"]}
    assert {name: after[name] for name in before} == before
    assert healthy(stack) == "prefect"


def second_command_waits(stack: Stack) -> None:
    """The second of two commands prints which one it waits for, and continues when that one has ended."""
    stack.on("dagster")
    first = typed(stack, "switch", "prefect")
    wait_until(lambda: first.poll() is not None or (stack.folder / ".stack" / "lock-holder").exists())
    second = typed(stack, "switch", "dagster")
    assert ended(first)[0] == 0
    code, out = ended(second)
    assert (code, f"Waiting for invoke switch (process {first.pid}) to finish" in out) == (0, True), out
    assert healthy(stack) == "dagster"


def run_in_progress(stack: Stack) -> None:
    """A command that would kill a run in progress is refused with the run's name, waits for the run, or cancels it; never silently."""

    def busy() -> bool:
        return stack.ask("select count(*) from pg_stat_activity where usename = 'dbt' and query like '%pg_sleep%'") != "0"

    stack.on("dagster")
    stack.invoke("backup", "--file", "before.dump")
    with stack.edited("models/intermediate/slow.sql", slow_model(60)):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or busy(), 120)
        before = stack.status()["services"]
        for command in (["switch", "prefect"], ["down"], ["clean", "--yes"], ["restore", "before.dump"]):
            output = stack.invoke(*command, code=13).stderr
            assert "A run is in progress: daily." in output
            assert f"http://localhost:{stack.ports['DAGSTER_PORT']}/runs/" in output
        (stack.folder / "before.dump").unlink()
        assert "contradict" in stack.invoke("down", "--wait", "--force", code=2).stderr
        assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]
        out = stack.invoke("switch", "prefect", "--wait").stdout
        assert "Waiting for daily" in out
        code, out = ended(run)
        assert (code, "daily succeeded on Dagster" in out) == (0, True), out

    stack.invoke("switch", "dagster")
    with stack.edited("models/intermediate/slow.sql", slow_model(300)):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or busy(), 120)
        out = stack.invoke("switch", "prefect", "--force").stdout
        assert "cancelled" in out
        code, out = ended(run)
        assert (code, "ended with canceled" in out) == (1, True), out
        assert not busy()
    assert healthy(stack) == "prefect"


def wait_for_health(stack: Stack) -> str:
    """Like `healthy`, after the health checks had time to notice what has changed."""
    wait_until(lambda: {service["health"] for service in stack.status()["services"]} == {"healthy"}, 90)
    return healthy(stack)


def healthy(stack: Stack) -> str:
    """The active orchestrator; asserts that all services are healthy, and that no other orchestrator has any."""
    status = stack.status()
    assert {service["health"] for service in status["services"]} == {"healthy"}, status
    assert {service["orchestrator"] for service in status["services"]} == {None, status["orchestrator"]}
    return status["orchestrator"]
