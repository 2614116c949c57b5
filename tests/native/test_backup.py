"""`backup` and `restore`: complete or not at all, no matter what happens and what is in the file."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from switchyard import backups

from ..stacks import copy_checkout, unavailable, wait_until
from .conftest import NativeStack, removed

OWNERS = "select distinct pg_get_userbyid(relowner) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'marts'"
SCHEMAS = "select string_agg(nspname, ' ' order by nspname) from pg_namespace where nspowner = 'dbt'::regrole"
ROOM = "room " * 30
HONEST = f"COMMENT ON SCHEMA marts IS '{ROOM}';".encode()


@pytest.fixture(scope="module")
def dump(stack, reference, tmp_path_factory) -> Path:
    """A backup of the marts as the first run built them."""
    stack.on("dagster")
    file = tmp_path_factory.mktemp("dumps") / "reference.dump"
    stack.invoke("backup", "--file", str(file))
    return file


@pytest.fixture(scope="module")
def roomy(stack, dump) -> bytes:
    """A backup with a long statement, so that a test can put another one in its place."""
    stack.invoke("sql", f"comment on schema marts is '{ROOM}'")
    file = dump.with_name("roomy.dump")
    stack.invoke("backup", "--file", str(file))
    assert HONEST in file.read_bytes()
    return file.read_bytes()


@contextmanager
def superuser(stack, statements: str) -> Iterator[subprocess.Popen]:
    """A session of the superuser that executes the statements during the block."""
    argv = [str(stack.programs / "psql"), "-h", "127.0.0.1", "-p", str(stack.ports["POSTGRES_PORT"]), "-U", "postgres", "-d", "airflow"]
    env = {**stack.env, "PGPASSWORD": stack.secrets()["POSTGRES_PASSWORD"]}
    with subprocess.Popen([*argv, "-Atqc", statements], env=env, stdout=subprocess.PIPE, text=True) as session:
        try:
            yield session
        finally:
            session.kill()


def wake_sleepers(stack) -> None:
    """End every session that sleeps, without waiting until the server notices that its client has ended."""
    stack.ask("select pg_terminate_backend(pid, 5000) from pg_stat_activity where wait_event = 'PgSleep'")


@contextmanager
def marts_held(stack) -> Iterator[None]:
    """Lock fct_orders, so that no other session can read or drop it meanwhile."""
    with superuser(stack, "begin; lock table marts.fct_orders; select pg_sleep(60)"):
        held = "select count(*) from pg_locks where relation = 'marts.fct_orders'::regclass and mode = 'AccessExclusiveLock' and granted"
        wait_until(lambda: stack.ask(held) == "1")
        try:
            yield
        finally:
            wake_sleepers(stack)


def waits_for_a_lock(stack, program: str) -> bool:
    query = f"select count(*) from pg_stat_activity where application_name = '{program}' and wait_event_type = 'Lock'"
    return stack.ask(query) == "1"


def kill_while_it_waits(stack, program: str, *args: str) -> None:
    """Run `invoke ARGS`, and kill it with all its child processes as soon as ``program`` waits for a lock."""
    command = subprocess.Popen([sys.executable, "-m", "invoke", *args], cwd=stack.folder, env=stack.env, stdout=subprocess.DEVNULL)
    wait_until(lambda: command.poll() is not None or waits_for_a_lock(stack, program))
    assert command.poll() is None, "it ended too soon"
    for process in [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]:
        process.kill()
    command.wait()
    wait_until(lambda: not waits_for_a_lock(stack, program))


def test_a_restore_brings_back_the_data_of_the_backup(stack, reference) -> None:
    stack.on("dagster")
    output = stack.invoke("backup", "status").stdout  # two commands
    assert "Dagster" in output
    file = Path(re.search(r"written to (\S+\.dump)", output)[1])
    assert file.parent == stack.folder / "backups"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert stack.git_status() == ""

    for statement in (
        "drop table marts.fct_orders cascade",
        "create table marts.younger as select 1 as a",
        "create schema younger create view v as select * from marts.dim_customers",
    ):
        stack.invoke("sql", statement)
    refused = stack.invoke("restore", str(file), code=2, stdin="n\n")
    assert "Replace all data in the schemas intermediate, marts, raw, snapshots, staging, younger" in refused.stdout
    assert "younger" in stack.sql(SCHEMAS)
    stack.invoke("restore", str(file), stdin="y\n")
    assert stack.hashes() == reference
    assert stack.sql(SCHEMAS) == "intermediate marts raw snapshots staging"
    assert stack.sql("select count(*) from pg_tables where tablename = 'younger'") == "0"
    assert stack.sql(OWNERS) == "dbt"
    stack.invoke("run", "--job", "smoke")


def test_backup_and_restore_leave_a_stopped_stack_stopped(stack, reference, dump, tmp_path) -> None:
    stack.invoke("down")
    stack.invoke("backup", "--file", str(tmp_path / "down.dump"))
    assert stack.processes() == []
    stack.invoke("restore", "--yes", str(tmp_path / "down.dump"))
    assert stack.processes() == []
    stack.on("dagster")
    assert stack.hashes() == reference


@pytest.mark.parametrize("name", ["-rf.dump", "two words, a quote's \"$(touch x)`;ü.dump"])
def test_a_file_may_have_any_name_and_is_never_replaced(stack, reference, dump, name) -> None:
    file = stack.folder / name
    try:
        stack.invoke("backup", f"--file={name}")
        before = file.read_bytes()
        assert "exists already" in stack.invoke("backup", f"--file={name}", code=2).stderr
        assert file.read_bytes() == before
        stack.invoke("restore", "--yes", f"--file={name}")
        assert not (stack.folder / "x").exists()
    finally:
        file.unlink()
    assert stack.hashes() == reference


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        pytest.param(lambda dump: dump[: len(dump) // 2], 18, "end of file", id="cut off in the middle"),
        pytest.param(lambda dump: dump[:4000], 18, "not a complete backup", id="cut off at its beginning"),
        pytest.param(lambda dump: b"", 18, "is not a backup", id="empty"),
        pytest.param(lambda dump: b"create table x();\n" * 100, 18, "is not a backup", id="SQL"),
        pytest.param(lambda dump: dump[:6] + b"\x10" + dump[7:], 14, "newer PostgreSQL", id="of a newer PostgreSQL"),
    ],
)
def test_a_damaged_backup_changes_nothing(stack, reference, dump, tmp_path, change, code, message) -> None:
    file = tmp_path / "bad.dump"
    file.write_bytes(change(dump.read_bytes()))
    assert message in stack.invoke("restore", "--yes", str(file), code=code).stderr
    assert stack.hashes() == reference


def test_a_missing_file_or_folder_is_reported(stack, tmp_path) -> None:
    assert "No such file" in stack.invoke("restore", str(tmp_path / "x.dump"), code=2).stderr
    assert "There is no folder" in stack.invoke("backup", "--file", str(tmp_path / "x" / "y.dump"), code=2).stderr


def test_restore_is_refused_while_a_session_is_active(stack, reference, dump) -> None:
    argv = [sys.executable, "-m", "invoke", "sql", "select pg_sleep(60)"]
    with subprocess.Popen(argv, cwd=stack.folder, env=stack.env, stdout=subprocess.DEVNULL) as busy:
        try:
            wait_until(lambda: stack.ask("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1")
            assert "select pg_sleep(60)" in stack.invoke("restore", "--yes", str(dump), code=13).stderr
        finally:
            for process in psutil.Process(busy.pid).children(recursive=True):
                process.kill()
            wake_sleepers(stack)
    assert stack.hashes() == reference


def test_a_killed_restore_changes_nothing(stack, reference, dump) -> None:
    with marts_held(stack):
        kill_while_it_waits(stack, backups.NAME, "restore", "--yes", str(dump))
    assert stack.hashes() == reference
    stack.invoke("restore", "--yes", str(dump))
    assert stack.hashes() == reference


def test_a_killed_backup_leaves_no_file_that_looks_like_one(stack, dump, tmp_path) -> None:
    with marts_held(stack):
        kill_while_it_waits(stack, backups.SAVING, "backup", "--file", str(tmp_path / "first.dump"))
    assert not list(tmp_path.glob("*.dump"))
    stack.invoke("backup", "--file", str(tmp_path / "second.dump"))
    assert [file.name for file in tmp_path.iterdir()] == ["second.dump"]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("ALTER ROLE dbt SUPERUSER;", id="more rights"),
        pytest.param("DROP TABLE public.dag_run;", id="another role's table"),
        pytest.param("COPY (SELECT 1) TO PROGRAM 'touch x';", id="a program on the server"),
        pytest.param("\n\\! touch x\n", id="a program on the client"),
        pytest.param("\n\\connect - postgres\n", id="another session"),
    ],
)
def test_a_hostile_file_can_do_no_more_than_a_model(stack, reference, roomy, tmp_path, statement) -> None:
    file = tmp_path / "hostile.dump"
    file.write_bytes(roomy.replace(HONEST, statement.encode().ljust(len(HONEST))))
    assert "the data is as it was" in stack.invoke("restore", "--yes", str(file), code=18).stderr
    assert stack.hashes() == reference
    assert stack.sql("select rolsuper from pg_roles where rolname = 'dbt'") == "f"
    assert not (stack.folder / "x").exists()
    assert not (stack.cluster / "x").exists()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_backup_to_a_full_disk_leaves_no_file(stack, dump, tmp_path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        unavailable("no disk can be mounted")
    try:
        assert "No space left" in stack.invoke("backup", "--file", str(tmp_path / "full.dump"), code=17).stderr
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_no_secret_is_shown_and_a_dry_run_writes_nothing(stack, dump, tmp_path) -> None:
    dry = stack.invoke("--dry", "backup", "--file", str(tmp_path / "x.dump")).stdout
    assert "pg_dump" in dry
    assert list(tmp_path.iterdir()) == []
    shown = dry + stack.invoke("--echo", "backup", "--file", str(tmp_path / "x.dump")).stdout
    shown += stack.invoke("--echo", "restore", "--yes", str(tmp_path / "x.dump")).stdout
    assert "pg_restore" in shown
    for key, value in stack.secrets().items():
        assert not key.endswith(("PASSWORD", "KEY", "SECRET")) or value not in shown, key


def test_clean_deletes_nothing_that_it_cannot_back_up(stack, reference, dump) -> None:
    folder = stack.folder / "backups"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file in the folder's place")
    try:
        refused = stack.invoke("clean", "--volumes", "--yes", code=2).stderr
    finally:
        folder.unlink()
    assert "Nothing was deleted" in refused
    assert "--no-backup" in refused
    assert stack.hashes() == reference


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask")
def test_backup_makes_its_folder_private(stack) -> None:
    stack.on("dagster")
    folder = stack.folder / "backups"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    stack.invoke("backup")
    assert folder.stat().st_mode & 0o077 == 0


def test_backup_and_restore_work_with_a_strict_umask(dump, root, bare_path, tmp_path) -> None:
    """And in a checkout that only its owner can read; if root starts PostgreSQL, it runs under another account."""
    folder = (tmp_path / "strict").resolve()
    copy_checkout(root, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    strict = NativeStack(folder, PATH=bare_path)
    strict.as_account = {"umask": 0o077}
    with removed(strict):
        strict.invoke("restore", str(dump))
        strict.invoke("backup", "--file", str(tmp_path / "again.dump"))
        assert (tmp_path / "again.dump").stat().st_mode & 0o77 == 0
