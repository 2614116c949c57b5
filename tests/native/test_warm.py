"""The warm dbt of an orchestrator: it looks like plain dbt from the outside, and ends with its caller."""

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rundbt import warm

from ..stacks import command_line, mostly_long, wait_until
from .conftest import warm_dbt_answers

SLEEPING = "select count(*) from pg_stat_activity where usename = 'dbt' and query like '%{}%' and state = 'active'"
NUMBERS = itertools.count(1)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm dbt on Linux only")


@pytest.fixture(scope="module")
def environ(stack) -> dict[str, str]:
    """The environment in which Dagster calls dbt."""
    stack.on("dagster")
    return stack.root("dagster-code").environ()


@pytest.fixture(scope="module")
def server(stack, environ) -> psutil.Process:
    """The process that has dbt in memory."""
    wait_until(lambda: warm_dbt_answers(Path(environ["SWITCHYARD_TARGET_PATH"])), 60)
    (found,) = [child for child in stack.root("dagster-code").children() if "--serve" in command_line(child)]
    return found


@pytest.fixture
def typed(stack, environ, tmp_path) -> Iterator:
    """Starts ``bin/dbt ARGS`` as Dagster does, with other variables if needed."""
    started = []

    def start(*args: str, dbt: str = str(stack.folder / "rundbt" / "bin" / "dbt"), **other: str) -> subprocess.Popen[str]:
        env = {**environ, "DBT_TARGET_PATH": str(tmp_path), "DBT_LOG_PATH": str(tmp_path), **other}
        process = subprocess.Popen([dbt, *args], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can use another account")
def test_another_accounts_request_is_refused(tmp_path, monkeypatch) -> None:
    tmp_path.chmod(0o755)
    place = tmp_path / "warm.sock"
    script = f"""
import os, socket, struct
os.setgroups([]); os.setgid(65534); os.setuid(65534)
server = socket.socket(socket.AF_UNIX)
server.connect({place.name!r})
socket.send_fds(server, [struct.pack("I", 3)], [0, 1, 2, 0])
server.sendall(b"0\\0x")
server.recv(1)
"""
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the path of the test's folder may be too long for a socket
        listener.bind(place.name)
        place.chmod(0o777)
        listener.listen()
        with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL) as other:
            client, _ = listener.accept()
            with client:
                request = warm.Request(client)
                while not request.receive():
                    pass
                with pytest.raises(warm.Refused, match="another user"):
                    request.understand("dbt")
                request.close()
            other.wait(10)


COMPILE = ["--quiet", "compile", "--no-populate-cache", "--inline"]


@pytest.mark.parametrize(
    "args",
    [
        ["build", "--no-such-option"],
        [*COMPILE, "{{ var('high_value_threshold') }} {{ env_var('OF_THE_CALLER') }}", "--vars", "high_value_threshold: 7"],
        [*COMPILE, "{{ no_such_macro() }}"],
    ],
    ids=["usage", "variables", "failure"],
)
def test_it_has_the_output_and_exit_code_of_dbt(typed, server, environ, args) -> None:
    warm, plain = (typed(*args, OF_THE_CALLER="hello", **other) for other in ({}, {"dbt": shutil.which("dbt", path=environ["PATH"])}))
    expected = output(plain)
    assert output(warm) == expected
    assert any(expected)


def output(dbt: subprocess.Popen[str]) -> tuple[str, str, int]:
    """Its output, without times of day, and its exit code."""
    out, err = (re.sub(r"\d\d:\d\d:\d\d", "", text) for text in dbt.communicate(timeout=120))
    return out, err, dbt.returncode


@pytest.fixture
def asleep(stack, typed) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a dbt whose query sleeps in PostgreSQL; each query has its own name, because that of a killed dbt stays active for a while."""

    def start(**other: str) -> subprocess.Popen[str]:
        name = f"asleep_{next(NUMBERS)}_"
        caller = typed("show", "--inline", f"select pg_sleep(119) as {name}", **other)
        wait_until(lambda: caller.poll() is not None or stack.ask(SLEEPING.format(name)) == "1", 120)
        return caller

    yield start
    wait_until(lambda: stack.ask(SLEEPING.format("asleep_")) == "0", 60)


def test_a_dbt_ends_with_its_caller(asleep, server) -> None:
    caller = asleep()
    (dbt,) = [child for child in server.children() if command_line(child) == server.cmdline()]
    caller.kill()
    wait_until(lambda: not dbt.is_running(), 30)


def test_a_dbt_ends_with_its_server(asleep, server, environ, tmp_path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    own = {**environ, "SWITCHYARD_TARGET_PATH": str(target)}
    parent = psutil.Popen([sys.executable, "-m", "rundbt.warm", "sleep", "600"], env=own, cwd=tmp_path)
    try:
        wait_until(lambda: warm_dbt_answers(target), 60)
        caller = asleep(SWITCHYARD_TARGET_PATH=str(target))
        (warm,) = parent.children()
        (dbt,) = [child for child in warm.children() if command_line(child) == warm.cmdline()]
        warm.kill()
        _, err = caller.communicate(timeout=30)
        assert caller.returncode == 1
        assert "killed" in err
        wait_until(lambda: not (dbt.is_running() and command_line(dbt)), 30)  # a zombie has no command line
    finally:
        parent.kill()
        parent.wait()


def test_silent_callers_do_not_block_others(typed, server, environ) -> None:
    path = f"{environ['SWITCHYARD_TARGET_PATH']}/warm.sock"
    folder = os.open(os.path.dirname(path), os.O_PATH)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    try:
        for client in silent:
            client.connect(f"/proc/self/fd/{folder}/warm.sock")
        silent[0].send(b"garbage")
        handled = sum(server.cpu_times()[2:4])
        dbt = typed("--quiet", "ls", "--select", "stg_shop__orders", "--resource-type", "model")
        assert output(dbt) == ("shop.staging.shop.stg_shop__orders\n", "", 0)
        assert sum(server.cpu_times()[2:4]) > handled  # a child of the server executed it
    finally:
        for client in silent:
            client.close()
        os.close(folder)


# All signals are passed on in the same way.
@pytest.mark.parametrize("number", mostly_long([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], signal.SIGINT, signal.SIGTERM))
def test_a_signal_ends_it_like_dbt(asleep, server, environ, number) -> None:
    codes = []
    for other in ({}, {"dbt": shutil.which("dbt", path=environ["PATH"])}):
        caller = asleep(**other)
        caller.send_signal(number)
        caller.communicate(timeout=60)
        codes.append(caller.returncode)
    assert codes[0] == codes[1]


def test_its_files_have_its_callers_umask(stack, server, environ, tmp_path) -> None:
    drop_in = stack.folder / "rundbt" / "bin" / "dbt"
    places = {"DBT_TARGET_PATH": str(tmp_path / "t"), "DBT_LOG_PATH": str(tmp_path)}
    command = 'umask 077; exec "$0" --quiet compile --no-populate-cache --inline "select 1"'
    dbt = subprocess.Popen(["sh", "-c", command, drop_in], cwd=tmp_path, env={**environ, **places}, stdout=subprocess.PIPE)
    dbt.communicate(timeout=120)
    assert dbt.returncode == 0
    assert (tmp_path / "t" / "manifest.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_a_slow_reader_gets_every_line(typed, server) -> None:
    lines = "{% for i in range(50000) %}{{ print(i) }}{% endfor %}"
    dbt = typed("--quiet", "--log-format", "json", "compile", "--no-populate-cache", "--inline", lines)
    assert dbt.stdout.read(1)  # the pipe is full long before the next read
    wait_until(lambda: any(command_line(child) == server.cmdline() for child in server.children()), 30)
    out, _ = dbt.communicate(timeout=120)
    assert dbt.returncode == 0
    assert len([line for line in out.splitlines() if "49999" in line]) >= 1
    assert out.count("\n") >= 50000


def test_without_a_server_it_is_plain_dbt(typed, tmp_path) -> None:
    dbt = typed("--version", SWITCHYARD_TARGET_PATH=str(tmp_path))
    out, _ = dbt.communicate(timeout=120)
    assert dbt.returncode == 0
    assert "postgres" in out
