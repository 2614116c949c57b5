"""The warm dbt beside an orchestrator: like dbt in all that one can see, and gone with whoever called it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from ..stacks import command_line, wait_until

SLEEPING = "select count(*) from pg_stat_activity where query like '%pg_sleep(119)%' and state = 'active' and pid <> pg_backend_pid()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm dbt on Linux only")


@pytest.fixture(scope="module")
def environ(stack) -> dict[str, str]:
    """The environment in which Dagster calls dbt."""
    stack.on("dagster")
    return stack.root("dagster-code").environ()


@pytest.fixture(scope="module")
def server(stack, environ) -> psutil.Process:
    """The process that has dbt in memory."""
    children = stack.root("dagster-code").children
    wait_until(lambda: (stack.folder / ".stack/native/environments/dagster/target/warm.sock").exists(), 60)
    return next(child for child in children() if "--serve" in command_line(child))


@pytest.fixture
def typed(stack, environ, tmp_path) -> Iterator:
    """Starts ``bin/dbt ARGS`` as Dagster does, with other variables if need be."""
    started = []

    def start(*args: str, dbt: str = str(stack.folder / "docker" / "common" / "bin" / "dbt"), **other: str) -> subprocess.Popen[str]:
        env = {**environ, "DBT_TARGET_PATH": str(tmp_path), "DBT_LOG_PATH": str(tmp_path), **other}
        process = subprocess.Popen([dbt, *args], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


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
def test_it_says_and_returns_what_dbt_does(typed, server, environ, args) -> None:
    warm, plain = (typed(*args, OF_THE_CALLER="hello", **other) for other in ({}, {"dbt": shutil.which("dbt", path=environ["PATH"])}))
    expected = said(plain)
    assert said(warm) == expected
    assert any(expected)


def said(dbt: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What it printed, but for the time of day, and its exit code."""
    out, err = (re.sub(r"\d\d:\d\d:\d\d", "", text) for text in dbt.communicate(timeout=120))
    return out, err, dbt.returncode


def test_a_dbt_ends_with_its_caller(stack, typed, server) -> None:
    caller = typed("show", "--inline", "select pg_sleep(119)")
    wait_until(lambda: caller.poll() is not None or stack.sql(SLEEPING) == "1", 120)
    (dbt,) = [child for child in server.children() if command_line(child) == server.cmdline()]
    caller.kill()
    wait_until(lambda: not dbt.is_running(), 30)


def test_without_a_server_it_is_plain_dbt(typed, tmp_path) -> None:
    dbt = typed("--version", SWITCHYARD_TARGET_PATH=str(tmp_path))
    out, _ = dbt.communicate(timeout=120)
    assert dbt.returncode == 0
    assert "postgres" in out
