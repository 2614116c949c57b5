"""`backup` and `restore` in containers, and a backup that moves between the runtimes."""

import os
import signal
import subprocess

import psutil
import pytest

from switchyard import backups

from ..interruptions import ended, typed
from ..native.conftest import NativeStack
from ..stacks import copy_checkout, unavailable, wait_until
from .conftest import PROJECT


def test_a_backup_moves_between_the_runtimes_in_both_directions(stack, reference, root, tmp_path) -> None:
    stack.on("dagster")
    ours, theirs = tmp_path / "docker.dump", tmp_path / "native.dump"
    stack.invoke("backup", "--file", str(ours))

    folder = (tmp_path / "native").resolve()
    copy_checkout(root, folder)
    native = NativeStack(folder, COMPOSE_PROJECT_NAME=f"{PROJECT}-native")
    try:
        native.invoke("restore", str(ours), "--runtime", "native")  # there is no data yet, so it does not ask
        native.invoke("backup", "--file", str(theirs), "--runtime", "native")
        assert native.processes() == []
    finally:
        native.invoke("clean", "--volumes", "--images", "--no-backup", "--yes", "--runtime", "native", code=None)

    stack.invoke("sql", "drop schema marts cascade")
    stack.invoke("sql", "create schema younger")
    stack.invoke("restore", "--yes", str(theirs))
    assert stack.hashes() == reference
    assert stack.sql("select count(*) from pg_namespace where nspname = 'younger'") == "0"
    stack.invoke("run", "--job", "smoke")


@pytest.mark.parametrize("how", ["killed", "Ctrl-C"])
def test_an_interrupted_restore_changes_nothing(stack, reference, tmp_path, how) -> None:
    stack.on("dagster")
    file = tmp_path / "x.dump"
    stack.invoke("backup", "--file", str(file))
    sessions = f"from pg_stat_activity where application_name = '{backups.NAME}'"
    psql = ["docker", "exec", f"{PROJECT}-postgres-1", "psql", "-U", "postgres", "-d", "airflow", "-Atc"]

    def ask(query: str) -> str:
        return subprocess.check_output([*psql, query], text=True).strip()

    def waits() -> bool:
        return ask(f"select count(*) {sessions} and wait_event_type = 'Lock'") == "1"

    with subprocess.Popen([*psql, "begin; lock table marts.fct_orders; select pg_sleep(600)"], stdout=subprocess.DEVNULL):
        wait_until(lambda: ask("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1")
        command = typed(stack, "restore", "--yes", str(file))
        wait_until(lambda: command.poll() is not None or waits())
        assert command.poll() is None, "it ended too soon"
        if how == "Ctrl-C":
            command.send_signal(signal.SIGINT)
            assert ended(command)[0] == 130
            assert ask(f"select count(*) {sessions}") == "0"  # although the lock is still held
        else:
            for process in [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]:
                process.kill()
            command.wait()
        ask("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")
    wait_until(lambda: ask(f"select count(*) {sessions}") == "0")
    assert stack.hashes() == reference


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [("sql", "delete from marts.fct_orders"), ("backup", "--file", "x.dump")], ids=lambda words: words[0])
def test_an_interrupted_statement_or_backup_is_ended_on_the_server(stack, reference, words, number) -> None:
    stack.on("dagster")
    sleeping = "from pg_stat_activity where wait_event = 'PgSleep'"
    waiting = "from pg_stat_activity where usename = 'dbt' and wait_event_type = 'Lock'"
    psql = ["docker", "exec", f"{PROJECT}-postgres-1", "psql", "-U", "postgres", "-d", "airflow"]
    lock = [*psql, "-c", "begin; lock table marts.fct_orders; select pg_sleep(600)"]
    with subprocess.Popen(lock, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_until(lambda: stack.ask(f"select count(*) {sleeping}") == "1")
        command = typed(stack, *words)
        wait_until(lambda: command.poll() is not None or stack.ask(f"select count(*) {waiting}") == "1")
        assert command.poll() is None, "it ended too soon"
        if number == signal.SIGINT:
            os.killpg(command.pid, number)  # as a terminal does
        else:
            command.send_signal(number)
        assert ended(command)[0] == 130
        assert stack.ask(f"select count(*) {waiting}") == "0"  # although the lock is still held
        stack.ask(f"select pg_terminate_backend(pid) {sleeping}")
    assert not (stack.folder / "x.dump").exists()
    assert stack.hashes() == reference


def test_a_backup_to_a_full_disk_leaves_no_file(stack, tmp_path) -> None:
    stack.on("dagster")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True).returncode:
        unavailable("no disk can be mounted")
    try:
        stack.invoke("backup", "--file", str(tmp_path / "full.dump"), code=17)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
