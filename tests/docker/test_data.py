"""PostgreSQL itself: its roles, its time zone, and that data is deleted only after a confirmation."""

import re
import subprocess

import pytest

from .conftest import PROJECT


@pytest.fixture(scope="module", autouse=True)
def up(stack) -> None:
    """A running server, no matter what was tested before."""
    stack.on("dagster")


STRANGER = f"not-{PROJECT}_postgres-db-volume"


def volumes() -> set[str]:
    """The stack's volumes and the stranger's; the machine's other volumes may change at any time."""
    found = subprocess.check_output(["docker", "volume", "ls", "--quiet"], text=True).split()
    return {name for name in found if name.startswith(f"{PROJECT}_") or name == STRANGER}


def test_the_old_name_of_the_indian_zone_works(stack) -> None:
    same = "now() at time zone 'Asia/Calcutta' = now() at time zone 'Asia/Kolkata'"
    assert stack.sql(f"select {same}, (now() at time zone 'Asia/Calcutta') - (now() at time zone 'UTC')") == "t\t05:30:00"
    assert stack.sql("select current_setting('server_version_num')::int / 10000") == "16"


def test_the_server_accepts_a_client_in_that_zone(stack) -> None:
    tried = subprocess.run(
        ["docker", "exec", "-e", "PGTZ=Asia/Calcutta", f"{PROJECT}-postgres-1",
         "psql", "-U", "postgres", "-d", "airflow", "-Atc", "show timezone"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert tried.stdout.strip() == "Asia/Calcutta", tried.stderr


def test_each_metadata_database_has_its_own_owner(stack) -> None:
    rows = stack.sql("select datname, pg_get_userbyid(datdba) from pg_database where not datistemplate order by 1").splitlines()
    assert rows == ["airflow\tairflow", "dagster\tdagster", "postgres\tpostgres", "prefect\tprefect"]


@pytest.mark.long
def test_missing_roles_are_created_again(stack) -> None:
    stack.on("dagster")
    stack.invoke("down")
    stack.invoke("up", "--orch", "prefect")
    psql = ["docker", "exec", f"{PROJECT}-postgres-1", "psql", "-U", "postgres", "-d", "airflow", "-c"]
    subprocess.run([*psql, "drop database dagster"], check=True)
    subprocess.run([*psql, "drop role dagster"], check=True)
    stack.invoke("switch", "dagster")
    stack.invoke("run", "--job", "smoke")


@pytest.mark.long  # in the short form, tests/native has this
def test_down_and_up_again_keep_the_data(stack, reference) -> None:
    stack.invoke("down")
    assert stack.status()["services"] == []
    assert f"{PROJECT}_postgres-db-volume" in volumes()
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference


def test_a_run_needs_an_active_orchestrator(stack) -> None:
    stack.invoke("down")
    assert "invoke up" in stack.invoke("run", code=8).stderr
    assert "invoke up" in stack.invoke("sql", "select 1", code=8).stderr


@pytest.mark.long  # in the short form, tests/small has a deletion
def test_clean_makes_a_backup_asks_and_deletes_only_its_own_volumes(stack, reference) -> None:
    stack.on("dagster")
    subprocess.run(["docker", "volume", "create", STRANGER], check=True, capture_output=True)
    try:
        before = volumes()
        stack.invoke("clean", "--volumes", code=2, stdin="n\n")
        assert volumes() == before
        assert stack.status()["orchestrator"] == "dagster"
        done = stack.invoke("clean", "--volumes", stdin="y\n").stdout
        backup = re.search(r"Backup written to (\S+)", done)[1]
        assert done.index(backup) < done.index("Delete ")
        gone = before - volumes()
        assert f"{PROJECT}_postgres-db-volume" in gone
        assert all(name.startswith(f"{PROJECT}_") for name in gone)
        containers = subprocess.check_output(["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}"], text=True)
        assert containers == ""
    finally:
        subprocess.run(["docker", "volume", "rm", STRANGER], check=True, capture_output=True)
    stack.invoke("restore", backup)
    assert stack.status()["services"] == []
    stack.invoke("up", "--orch", "dagster")
    assert stack.hashes() == reference
