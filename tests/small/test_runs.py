"""Runs in progress, without Docker."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from switchyard import ports

from .. import runs
from ..interruptions import ended, read_until, typed
from ..stacks import DAGSTER, ROOT, mostly_long, slow_model, wait_until

NAMES = ["dagster", "airflow", "prefect"]


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    """An orchestrator; its tests run one after the other, which saves switches."""
    return request.param


@pytest.mark.long  # in the short form, test_airflow.py has Airflow's, and test_flow_runs.py one of Prefect
@pytest.mark.parametrize("name", ["dagster", "prefect"], indirect=True, scope="module")
def test_a_run_is_shown_and_canceled(stack, reference, name) -> None:
    runs.canceled_run(stack, name, reference)


@pytest.mark.long  # in the short form, test_flow_runs.py has Prefect's, and test_schedules.py has Dagster's
@pytest.mark.parametrize("name", ["dagster", "airflow"], indirect=True, scope="module")
def test_two_runs_take_turns(stack, reference, name) -> None:
    runs.two_runs_take_turns(stack, name, reference)


@pytest.mark.long  # in the short form, test_flow_runs.py has Prefect's, whose worker creates the deployments when it starts
@pytest.mark.parametrize("name", ["dagster", "airflow"], indirect=True, scope="module")
def test_edited_jobs_need_only_up(stack, reference, name) -> None:
    runs.edited_jobs(stack, name, reference)


@pytest.mark.long  # in the short form, tests/docker has an edit between two runs
@pytest.mark.parametrize("name", DAGSTER, indirect=True, scope="module")
def test_an_edit_at_any_time_is_in_the_next_run(stack, reference, name) -> None:
    runs.edits_at_any_time(stack, name, reference)


@pytest.mark.parametrize("name", mostly_long(NAMES, "dagster"), indirect=True, scope="module")  # others: test_airflow.py, test_flow_runs.py
def test_what_failed_runs_again(stack, reference, name) -> None:
    runs.failed_again(stack, name, reference)


@pytest.mark.parametrize("name", mostly_long(NAMES, "prefect"), indirect=True, scope="module")
def test_a_failed_model_runs_again_under_another_name(stack, reference, name) -> None:
    runs.renamed_model(stack, name)
    assert stack.hashes() == reference


@pytest.mark.parametrize("name", DAGSTER, indirect=True, scope="module")
def test_options_apply_to_one_run(stack, reference, name) -> None:
    runs.options_of_a_run(stack, name)
    assert stack.hashes() == reference


def test_what_has_changed_since_a_release_is_selected(stack, reference) -> None:
    """With the selector of .github/workflows/release.yml: also what the changed models need, because CI's database is empty."""
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    (words,) = re.findall(r"invoke dbt build (--select \S+ --state state)$", text, re.M)
    assert words in (ROOT / "docs/gitlab-ci.yml").read_text(encoding="utf-8")

    def selected() -> list[str]:
        return sorted(stack.invoke("dbt", "--quiet", "ls", "--exclude", "resource_type:test", *words.split()).stdout.split())

    stack.on("dagster")
    stack.invoke("run")
    state = stack.dbt / "state"
    state.mkdir()
    try:
        shutil.copy(stack.folder / ".stack/native/environments/dagster/target/manifest.json", state)
        with stack.edited("models/new.sql", "select id from {{ ref('first') }}\n"):
            assert selected() == ["small.first", "small.new", "small.raw_rows"]
        with stack.edited("models/first.sql", (stack.dbt / "models/first.sql").read_text() + "where true\n"):
            assert selected() == ["small.first", "small.last", "small.raw_rows"]
    finally:
        shutil.rmtree(state)


def test_a_node_that_waits_for_a_lock_is_shown_with_the_locks_holder(stack, reference) -> None:
    stack.on("dagster")
    with runs.kept_waiting(stack, "run") as output:
        shown = re.search(
            r"model\.small\.last waits for a lock that process (\d+) of PostgreSQL has \(role dbt, since [\d:]+ UTC: (.*)\)", output
        )
        assert shown, output
        assert "select 'mine'" in shown[2]
    assert stack.hashes() == reference
    assert stack.sql("select current_setting('lock_timeout')") == "10min"


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are removed by a feature of Linux")
@pytest.mark.parametrize("name", mostly_long(["dagster", "airflow"], "dagster"))
def test_dbt_gets_no_secret_of_its_orchestrator(stack, reference, name) -> None:
    stack.on(name)
    found = "{% for name in env_var('SWITCHYARD_SECRETS').split() if env_var(name, '') %}{{ name }} {% endfor %}"
    with stack.edited("models/secrets.sql", f"select '{found}'::text as found"):
        stack.invoke("run", "--select", "secrets")
        assert stack.sql("select found from secrets") == ""
        assert "| none " in stack.invoke("dbt", "show", "--inline", f"select '{found}none'::text as found").stdout
    stack.invoke("sql", "drop view secrets")


def test_a_run_waits_for_services_that_are_starting(stack, reference) -> None:
    stack.invoke("down")
    for _ in range(10):  # at first, PostgreSQL itself may take longer
        stack.invoke("up", "--orch", "dagster", "--timeout", "1", code=12)
        if stack.started("dagster-webserver"):
            break
    assert "waiting for the start of the services" in stack.invoke("run").stdout.lower()
    assert stack.hashes() == reference


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_a_command_in_a_scripts_background_can_be_stopped(stack, reference) -> None:
    """A shell starts it with Ctrl-C ignored."""
    stack.on("dagster")
    with stack.edited("models/slow.sql", slow_model(40, ["last"])):
        script = f"trap '' INT; exec {stack.python} -m invoke run"
        run = subprocess.Popen(
            ["sh", "-c", script], cwd=stack.folder, env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_until(lambda: run.poll() is not None or stack.ask(runs.SLOW.format(40)) == "1", 120)
        run.terminate()
        code, out = ended(run)
        assert (code, "The run continues" in out) == (130, True)
        wait_until(lambda: runs.ask_runs(stack, "active_runs") == [], 120)
    stack.invoke("run")
    assert stack.hashes() == reference


def test_docs_refuse_a_port_that_is_taken(stack) -> None:
    stack.on("dagster")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert f"Port {port} cannot be used." in stack.invoke("docs", "--port", port, code=9).stderr


@pytest.mark.long
def test_up_leaves_a_run_in_progress_alone(stack, reference) -> None:
    stack.on("dagster")
    with stack.edited("models/slow.sql", slow_model(40, ["last"])):
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.ask(runs.SLOW.format(40)) == "1", 120)
        before = stack.status()["services"]
        new = {"RETENTION_DAYS": "29", "DAGSTER_PORT": str(ports.unused())}  # all of its processes use the first, and one uses the second
        for command in (["up", "--orch", "dagster"], ["switch", "dagster"]):
            assert "A run is in progress: daily" in stack.invoke(*command, **new).stdout
        assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]
        assert ended(run)[0] == 0
    stack.invoke("up", "--orch", "dagster", RETENTION_DAYS="29")
    assert not {service["id"] for service in stack.status()["services"] if service["orchestrator"]} & {service["id"] for service in before}
    stack.invoke("run")
    assert stack.hashes() == reference


def test_a_switch_sees_a_run_that_is_about_to_begin(stack, reference) -> None:
    stack.on("dagster")
    holder = stack.folder / ".stack" / "lock-holder"
    with stack.edited("models/slow.sql", slow_model(5, ["last"])):  # Dagster reloads the project before it has the run
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or holder.exists())
        assert "A run is in progress: daily." in stack.invoke("switch", "prefect", code=13).stderr
        assert ended(run)[0] == 0
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
def test_an_error_in_a_seed_is_shown_with_its_fix(stack, reference) -> None:
    stack.on("dagster")
    with stack.edited("seeds/towns.csv", b"id,name\n1,a\n"):
        stack.invoke("run")
        with stack.edited("seeds/towns.csv", b"id,town\n1,a\n"):
            done = stack.invoke("run", code=1)
            assert re.search(r"error +seed +towns", done.stdout)
            assert "The seed's columns have changed: invoke run --full-refresh" in done.stderr
            stack.invoke("run", "--full-refresh")
        with stack.edited("seeds/towns.csv", b"id,town\n1,M\xfcnchen\n"):
            output = stack.invoke("run", code=1).stderr
            assert "Not in UTF-8, which dbt requires: seeds/towns.csv" in output
            assert "Traceback" not in output
    stack.invoke("sql", "drop table towns")
    stack.invoke("run")
    assert stack.hashes() == reference


def test_ports_edited_while_the_stack_is_up_take_effect_at_the_next_start(stack, reference, tmp_path) -> None:
    stack.on("dagster")
    server = stack.root("postgres")
    new = {key: str(port) for key, port in zip(("POSTGRES_PORT", "DAGSTER_PORT"), ports.unused_ports(2))}
    try:
        shown = stack.invoke("status", **new)
        assert {key: f"localhost:{stack.ports[key]}" in shown.stdout for key in new} == dict.fromkeys(new, True)
        assert all(f"{key} is now {port};" in shown.stderr for key, port in new.items())
        stack.invoke("run", **new)
        stack.invoke("sql", "select 1", **new)
        stack.invoke("backup", "--file", str(tmp_path / "a.dump"), **new)
        stack.invoke("restore", "--yes", str(tmp_path / "a.dump"), **new)
        assert server.is_running()
        stack.invoke("up", "--orch", "dagster", **new)
        shown = stack.invoke("status")  # although the settings have the old ports
        assert all(f"localhost:{port}" in shown.stdout for port in new.values())
    finally:
        stack.invoke("up", "--orch", "dagster")
    assert "the running stack keeps" not in stack.invoke("status").stderr
    assert stack.hashes() == reference


@pytest.mark.parametrize("name", DAGSTER, indirect=True, scope="module")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_command_shows_that_the_run_continues(stack, reference, name, number) -> None:
    runs.interrupted_command(stack, name, reference, number)


def test_a_second_interrupt_on_a_terminal_cancels_the_run(stack, reference) -> None:
    pty = pytest.importorskip("pty")
    stack.on("dagster")
    with stack.edited("models/slow.sql", runs.SLOW_MODEL):
        ours, theirs = pty.openpty()
        command = typed(stack, "run", stdin=theirs)
        try:
            wait_until(lambda: command.poll() is not None or stack.ask(runs.SLOW_QUERIES) == "1", 120)
            command.send_signal(signal.SIGINT)
            read_until(command, "Ctrl-C again")
            command.send_signal(signal.SIGINT)
            rest, _ = command.communicate(timeout=120)
        finally:
            command.kill()
            os.close(ours)
            os.close(theirs)
        assert "daily is cancelled: http://" in rest
        assert command.returncode == 130
        assert runs.ask_runs(stack, "active_runs") == []
    assert stack.hashes() == reference
