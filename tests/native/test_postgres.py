"""The bundled server: what it has in common with the container's, and what happens if it cannot run."""

import re
import socket
import sys

import pytest

from ..stacks import POISON, wait_until
from .conftest import ask_as


def test_the_server_is_like_the_containers(stack) -> None:
    stack.on("dagster")
    assert stack.sql("select current_setting('server_version_num')::int / 10000") == "16"
    assert stack.sql("select now() at time zone 'Asia/Calcutta' - now() at time zone 'UTC'") == "05:30:00"
    assert stack.sql("select current_setting('data_checksums'), current_setting('client_connection_check_interval')") == "on\t10s"
    # dbt's tables need only a minimal WAL, and POSTGRES_MEMORY sets the size of the cache.
    assert stack.sql("select current_setting('wal_level'), pg_size_bytes(current_setting('shared_buffers')) >= 256 << 20") == "minimal\tt"
    contrib = stack.sql("select count(*) from pg_available_extensions where name in ('pg_trgm', 'pgcrypto', 'tablefunc')")
    assert contrib == "3"


def test_it_accepts_a_client_in_that_zone(stack) -> None:
    stack.on("dagster")
    assert "Asia/Calcutta" in stack.invoke("sql", "show timezone", PGTZ="Asia/Calcutta").stdout


def test_it_listens_only_on_this_machine(stack) -> None:
    stack.on("dagster")
    server = stack.root("postgres")
    addresses = {connection.laddr.ip for connection in server.net_connections() if connection.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}
    assert stack.ask("select current_setting('unix_socket_directories')") == ""


def test_nobody_connects_without_the_password(stack) -> None:
    stack.on("dagster")
    refused = stack.invoke("sql", "select 1", code=1, DBT_PASSWORD="wrong")
    assert "password authentication failed" in refused.stderr
    ask_as(stack, "postgres", "airflow", "select 1", code=2, password="wrong")
    assert stack.ask("select distinct auth_method from pg_hba_file_rules") == "scram-sha-256"


# For each schema in a session's search path: whether dbt may create something there.
SEARCHED = """
select nspname, has_schema_privilege('dbt', nspname, 'create') from unnest(current_schemas(true)) as nspname
"""


def test_other_roles_never_use_an_object_that_dbt_created(stack, reference) -> None:
    """This holds for the sessions of the orchestrators and of the superuser, in every database that accepts them."""
    stack.on("dagster")
    trap = "begin raise exception 'dbt was here'; end"
    for role in ("airflow", "dagster", "prefect", "postgres"):
        stack.invoke("sql", f"create schema {role}; create table {role}.dag_run (id int); create table {role}.pg_class (id int)")
        stack.invoke("sql", f"create function {role}.lower(varchar) returns text language plpgsql as $${trap}$$")
    try:
        entered = 0
        for role in ("airflow", "dagster", "prefect", "postgres"):
            for database in ask_as(stack, "postgres", "airflow", "select datname from pg_database where datallowconn").split():
                allowed = f"select has_database_privilege('{role}', '{database}', 'connect')"
                if ask_as(stack, "postgres", "airflow", allowed) == "t":
                    entered += 1
                    assert ask_as(stack, role, database, "select lower('A'::varchar)") == "a"
                    searched = dict(line.split("|") for line in ask_as(stack, role, database, SEARCHED).splitlines())
                    assert "pg_catalog" in searched
                    assert set(searched.values()) == {"f"}, (role, database, searched)
        assert entered >= 7  # postgres in all databases, the others in their own
        stack.invoke("up", "--orch", "dagster")  # opens the bootstrap's session as the superuser, and the orchestrator's
        stack.invoke("run", "--job", "smoke")
    finally:
        for role in ("airflow", "dagster", "prefect", "postgres"):
            stack.invoke("sql", f"drop schema {role} cascade")
    assert stack.hashes() == reference


@pytest.mark.long
def test_the_callers_variables_do_not_lead_to_another_server(stack, reference, tmp_path) -> None:
    stack.invoke("down")
    stack.invoke("up", "--orch", "prefect", **POISON)  # its driver reads these variables itself
    assert {health for _, health in stack.states().values()} == {"healthy"}
    assert '"unhealthy"' not in stack.invoke("status", "--json", **POISON).stdout
    assert "succeeded on" in stack.invoke("run", "--job", "smoke", **POISON).stdout
    assert "300" in stack.invoke("sql", "select count(*) from marts.dim_customers", **POISON).stdout
    stack.invoke("backup", "--file", str(tmp_path / "a.dump"), **POISON)
    stack.invoke("restore", "--yes", str(tmp_path / "a.dump"), **POISON)
    assert stack.hashes() == reference


def test_no_other_account_can_read_the_folders(stack) -> None:
    stack.on("dagster")
    for folder in (stack.folder / ".stack", stack.cluster):
        assert folder.stat().st_mode & 0o77 == 0


def test_new_passwords_open_the_old_data(stack, reference) -> None:
    stack.on("dagster")
    env = stack.folder / ".env"
    before = env.read_text()
    env.write_text(re.sub(r"(?m)^(\w+_PASSWORD)=.*$", r"\1=<password>", before))
    stack.invoke("up", "--orch", "dagster")
    assert stack.secrets()["POSTGRES_PASSWORD"] not in before
    assert set(stack.states().values()) == {("running", "healthy")}
    assert stack.hashes() == reference


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library has this name only on Linux")
def test_a_missing_library_is_reported(stack, tmp_path) -> None:
    stack.invoke("down")
    for name in ("postgres", "initdb", "pg_ctl", "psql"):
        copy = tmp_path / name
        copy.write_bytes((stack.programs / name).read_bytes().replace(b"libxml2.so.2", b"libxml9.so.2"))
        copy.chmod(0o755)
    refused = stack.invoke("up", code=3, STACK_PG_BIN=str(tmp_path)).stderr
    assert "libxml9.so.2: cannot open shared object file" in refused
    assert "set STACK_PG_BIN in .env" in refused
    assert stack.processes() == []


def test_a_wrong_folder_of_programs_is_reported(stack, tmp_path) -> None:
    stack.invoke("down")
    refused = stack.invoke("up", code=3, STACK_PG_BIN=str(tmp_path)).stderr
    assert f"{tmp_path / 'postgres'}: No such file" in refused


@pytest.mark.long
def test_the_users_own_programs_are_used(stack, reference) -> None:
    stack.invoke("down")
    own = stack.programs.parent
    elsewhere = own.with_name("elsewhere")
    own.rename(elsewhere)
    try:
        stack.invoke("up", "--orch", "dagster", STACK_PG_BIN=str(elsewhere / "bin"))
        assert stack.root("postgres").exe() == str(elsewhere / "bin" / "postgres")
        assert stack.invoke("sql", "select 1", STACK_PG_BIN=str(elsewhere / "bin")).returncode == 0
        stack.invoke("down", STACK_PG_BIN=str(elsewhere / "bin"))
    finally:
        elsewhere.rename(own)
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference


def test_the_server_starts_again_after_it_was_killed(stack, reference) -> None:
    stack.on("dagster")
    with socket.create_connection(("127.0.0.1", stack.ports["POSTGRES_PORT"])):
        stack.root("postgres").kill()
        wait_until(lambda: stack.states()["postgres"][0] == "crashed")
        stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference
