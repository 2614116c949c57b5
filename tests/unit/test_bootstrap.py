"""The roles and databases that every `up` creates if they are missing."""

import re
from pathlib import Path

from switchyard import bootstrap
from switchyard.settings import Settings

from .test_docker_argv import DAGSTER

VALUES = {"POSTGRES_PASSWORD": "root", "DBT_PASSWORD": "it's", "DAGSTER_DB_PASSWORD": "x", "LOCK_TIMEOUT": "600"}


def test_each_orchestrator_gets_a_role_that_owns_its_database() -> None:
    script = bootstrap.sql(Settings(Path("/shop"), VALUES, "p"), [DAGSTER])
    assert 'create role "dagster" login' in script
    assert 'create database "dagster" owner "dagster"' in script
    assert 'revoke all on database "dagster" from public;' in script
    assert "grant connect, create, temporary on database airflow to dbt;" in script


def test_a_password_with_a_quote_cannot_leave_its_literal() -> None:
    script = bootstrap.sql(Settings(Path("/shop"), VALUES, "p"), [DAGSTER])
    assert "password 'it''s';" in script


def test_another_project_gets_its_own_database_and_the_shop_does_not() -> None:
    settings = Settings(Path("/shop"), VALUES, "p")
    script = bootstrap.sql(settings, [DAGSTER], "jaffle")
    assert 'create database "jaffle" owner "dbt"' in script
    assert 'revoke all on database "jaffle" from public;' in script
    assert "owner dbt" not in bootstrap.sql(settings, [DAGSTER], bootstrap.WAREHOUSE)


def test_only_a_long_password_is_hashed_once() -> None:
    def iterations(password: str) -> list[str]:
        script = bootstrap.sql(Settings(Path("/shop"), {**VALUES, "DAGSTER_DB_PASSWORD": password}, "p"), [DAGSTER])
        return re.findall(r"set_config\(name, '(\d+)'|create role \"(\w+)\"", script)

    assert iterations("x" * 23) == [("", "dbt"), ("4096", ""), ("", "dagster"), ("4096", "")]
    assert iterations("x" * 24) == [("", "dbt"), ("1", ""), ("", "dagster"), ("4096", "")]
