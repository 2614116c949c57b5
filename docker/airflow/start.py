"""``start.py api-server|scheduler|dag-processor``: become that Airflow component, once the metadata database is ready for it.

The api-server prepares the database and the password file; the others wait for the database.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psycopg2

from switchyard import ending


def schema_is_current() -> bool:
    """Whether the database carries the mark of this Airflow version; see `migrate`."""
    revision, mark = _query("select (select version_num from alembic_version), obj_description('alembic_version'::regclass)") or (
        None,
        None,
    )
    return mark is not None and mark == _mark(revision)


def migrate() -> None:
    """Bring the schema and the pools up to date.

    ``airflow db migrate`` takes ten seconds even when nothing is to do. So its success is noted in the database itself, as
    a comment, where the note cannot outlive the schema that it is about.
    """
    subprocess.run(["airflow", "db", "migrate"], check=True)
    subprocess.run(["airflow", "pools", "import", str(Path(__file__).with_name("pools.json"))], check=True)
    (revision,) = _query("select version_num from alembic_version")
    _query(f"comment on table alembic_version is '{_mark(revision)}'")


def write_passwords() -> None:
    """Give the user ``admin`` the password from the environment, in the file where the auth manager looks for it."""
    path = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}, file)


def _mark(revision: str) -> str:
    return f"prepared by Airflow {version('apache-airflow')} to {revision}"


def _query(sql: str) -> tuple | None:
    """The first row of a statement's result, or None where there is none, or no such table."""
    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "", 1)
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "api-server":
        write_passwords()
        if not schema_is_current():
            migrate()
    while not schema_is_current():
        time.sleep(0.5)
    # In this process, so that this holds: to look for garbage as often as Python does by itself, among all that is made at the
    # start and stays, would take the API server a third of its start.
    gc.set_threshold(10_000)
    from airflow.__main__ import main

    ending.run(main)
