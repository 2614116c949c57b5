"""``start.py api-server|scheduler|dag-processor|celery worker``: become that Airflow component once the metadata database is ready.

The api-server prepares the database and the password file; the others wait for the database.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from importlib.metadata import entry_points
from pathlib import Path

import psycopg2
from airflow.utils.db import check_migrations

from rundbt import project_files, quick_exit, retention

RUNS = "dag_run,task_instance_history,xcom,log,job,celery_taskmeta"  # not what it keeps of the DAGs, such as which schedules are on
POOLS = Path(__file__).with_name("pools.json")


def connect() -> psycopg2.extensions.connection:
    """A connection to the metadata database, for a query that does not need Airflow."""
    return psycopg2.connect(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "", 1))


def database_is_ready(exactly: bool) -> bool:
    """Whether the schema is that of this Airflow version, and the pools, which `prepare` makes last, exist.

    Args:
        exactly: whether each pool must have the number of slots in the file; a person may have changed it on the page.
    """
    try:
        check_migrations(0)
    except TimeoutError:
        return False
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select pool, slots from slot_pool")
        found = dict(cursor.fetchall())
    wanted = json.loads(POOLS.read_text())
    return wanted.keys() <= found.keys() and (not exactly or all(found[name] == pool["slots"] for name, pool in wanted.items()))


def prepare() -> None:
    """Bring the schema and the pools up to date. Airflow's commands take ten seconds even when there is nothing to do."""
    subprocess.run(["airflow", "db", "migrate"], check=True)
    subprocess.run(["airflow", "pools", "import", str(POOLS)], check=True)


def delete_old_runs(before: datetime) -> None:
    """Have Airflow delete its records of old runs, if there are any, in a separate process: its command takes seconds."""
    with closing(connect()) as connection, connection.cursor() as cursor:
        # Airflow keeps the last scheduled run of each DAG.
        cursor.execute(
            "select 1 from dag_run as old where end_date < %s"
            " and exists (select from dag_run as new where new.dag_id = old.dag_id and new.start_date > old.start_date) limit 1",
            [before],
        )
        if cursor.fetchone():
            options = ["--tables", RUNS, "--clean-before-timestamp", before.isoformat(), "--skip-archive", "--yes"]
            subprocess.Popen(["airflow", "db", "clean", *options])


def delete_old_logs(before: datetime) -> None:
    """Remove the logs of old runs from this machine: each worker elsewhere has its own."""
    logs = Path(os.environ["AIRFLOW_HOME"], "logs")
    retention.delete_folders([*logs.glob("dag_id=*/run_id=*"), *logs.glob("dag_processor/20*")], before)


def write_passwords() -> None:
    """Write the password of the user ``admin`` from the environment to the auth manager's file."""
    path = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}, file)


if __name__ == "__main__":
    project_files.share_files()
    if sys.argv[1] == "api-server":
        write_passwords()
        if not database_is_ready(exactly=True):
            prepare()
    while not database_is_ready(exactly=False):
        time.sleep(0.5)
    # At Python's default threshold, garbage collection would take a third of the API server's start, because most objects that are
    # created at the start stay. The component runs in this process, so that this setting applies to it.
    gc.set_threshold(10_000)
    if sys.argv[1] == "celery":
        import rundbt.celery_alive  # noqa: F401  (for the health check)
    if sys.argv[1] in ("scheduler", "celery"):
        oldest = datetime.now(timezone.utc) - timedelta(days=int(os.environ["RETENTION_DAYS"]))
        if sys.argv[1] == "scheduler":
            delete_old_runs(oldest)
        delete_old_logs(oldest)
        import dag_factory  # noqa: F401  (tasks are forked from this process, and then do not each import Cosmos)
    (command,) = entry_points(group="console_scripts", name="airflow")
    quick_exit.run(command.load())
