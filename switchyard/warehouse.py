"""What the commands that replace or copy the warehouse's data share: a running server, queries, and a check that the data is not in use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from switchyard import bootstrap, console, lifecycle, pipeline
from switchyard import project as projects
from switchyard.errors import BadUsage, NotHealthy, RunInProgress, StackError
from switchyard.runner import Result
from switchyard.runtimes.runtime import POSTGRES, WarehouseRuntime

START_TIMEOUT_S = 120  # seconds that PostgreSQL may take to start

# The databases in which the role dbt may create schemas: one for each project.
DATABASES = "select datname from pg_database where has_database_privilege(datname, 'create') order by datname"
# `public` belongs to the database's owner, and counts only if there is anything in it.
_SCHEMAS = """
select nspname from pg_namespace as schema
where pg_has_role(nspowner, 'usage')
and (nspname <> 'public' or exists (select from pg_class where relnamespace = schema.oid)
     or exists (select from pg_proc where pronamespace = schema.oid))
order by nspname
"""
# The extensions that the role dbt has created: its schemas may use their types and functions.
EXTENSIONS = "select extname from pg_extension where extowner = to_regrole(current_user) order by extname"
# This also waits until the sessions have ended: after that they change nothing.
_END = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = {} and usename = current_user"
# A session that is idle in a transaction counts as busy too.
_BUSY = """
select format('%s (process %s) is %s since %s: %s', coalesce(nullif(application_name, ''), 'A client'), pid, state,
              date_trunc('second', state_change), left(regexp_replace(query, '\\s+', ' ', 'g'), 80))
from pg_stat_activity where usename = current_user and pid <> pg_backend_pid() and state <> 'idle'
"""

LOCK_POLL_S = 10  # seconds: how often locks are checked, and how long a node may wait before it is shown
# dbt puts the node into a comment before its query.
_WAITING = f"""
select format('%s waits for a lock that process %s of PostgreSQL has (role %s%s%s)',
              coalesce(substring(waiting.query from '"node_id": "([^"]+)"'), nullif(waiting.application_name, ''), 'dbt'),
              blocking.pid, blocking.usename,
              ', since ' || to_char(blocking.xact_start, 'HH24:MI:SS TZ'),
              -- PostgreSQL hides the query of another role's session from dbt
              ': ' || left(regexp_replace(nullif(blocking.query, '<insufficient privilege>'), '/\\*.*\\*/|\\s+', ' ', 'g'), 80))
from pg_stat_activity as waiting
cross join unnest(pg_blocking_pids(waiting.pid)) as blocker (pid)
join pg_stat_activity as blocking on blocking.pid = blocker.pid
where waiting.usename = current_user
and (select min(waitstart) from pg_locks where pg_locks.pid = waiting.pid) < now() - interval '{LOCK_POLL_S} s'
"""


@contextmanager
def watched(runtime: WarehouseRuntime) -> Iterator[None]:
    """Show which session blocks a node of a followed run, or a backup. Otherwise both would hang without a message."""
    ended = threading.Event()

    def watch() -> None:
        shown: set[str] = set()
        while not ended.wait(LOCK_POLL_S):
            with suppress(StackError, OSError):  # the project may be half-edited, and the terminal closed
                if not runtime.project.shared:
                    return
                for line in query(runtime, _WAITING):
                    if line not in shown and not ended.is_set():
                        console.advice(line)
                        shown.add(line)

    if not runtime.runner.dry:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def server(runtime: WarehouseRuntime) -> Iterator[None]:
    """Have PostgreSQL up, with its roles; if nothing was up before, stop it afterwards."""
    services = runtime.services()
    up = [service.name for service in services if service.up]
    ready = any(service.name == POSTGRES and service.health == "healthy" for service in services)
    if POSTGRES not in up:
        lifecycle.build(runtime, runtime.images.outdated([POSTGRES], baked=False))
    try:
        with console.Waiting("start" if POSTGRES not in up else "check", "PostgreSQL") as waiting:
            if not ready:  # one that is up is not touched, even if this version would start it with other options
                runtime.start_postgres(START_TIMEOUT_S, waiting.detail)
        with watched(runtime):
            yield
    finally:
        if not up:
            with console.Waiting("stop", "PostgreSQL") as waiting:
                runtime.down(waiting.detail)


def require_shared(runtime: WarehouseRuntime, command: str) -> None:
    """Make sure that the project's data is in the stack's own PostgreSQL.

    Raises:
        BadUsage: it is in the warehouse of the project's profile.
    """
    if not runtime.project.shared:
        raise BadUsage(
            f"`invoke {command}` works on the stack's PostgreSQL, and the data of {runtime.project.name} is not there.",
            f"Its profile names another warehouse ({runtime.project.adapter}).",
            "Query it with: invoke dbt show --inline 'select 1'   (WAREHOUSE=shared in .env uses the stack's PostgreSQL)",
        )


def query(runtime: WarehouseRuntime, statement: str, database: str | None = None) -> list[str]:
    """The rows of a one-column query, as the role ``dbt`` in the project's database, or another one.

    Raises:
        NotHealthy: the server does not answer, or with an error.
    """
    args = ["--no-psqlrc", "--tuples-only", "--no-align", "--record-separator-zero"]
    args += ["--dbname", database or projects.database(runtime.settings)]
    argv, env = runtime.client("psql", *args, "--command", statement)
    found = runtime.runner.ask(argv, env)
    if found.code and not runtime.runner.dry:
        next_ = "invoke up   (it also makes the database of another project)\nIf that does not help: invoke logs --service postgres"
        raise NotHealthy("The warehouse does not answer.", found.stderr.strip(), next_)
    return [row for row in found.stdout.split("\0") if row.strip()]


def change(runtime: WarehouseRuntime, statement: str) -> Result:
    """Run a statement that changes something, as the role ``dbt`` in the project's database."""
    argv, env = runtime.client("psql", "--no-psqlrc", "--dbname", projects.database(runtime.settings), "--command", statement)
    return runtime.runner.change(argv, env=env)


@contextmanager
def ended_when_interrupted(runtime: WarehouseRuntime, name: str) -> Iterator[None]:
    """If the command is interrupted, end the sessions called ``name``: in a container they would continue without their client."""
    try:
        yield
    except BaseException:
        with suppress(StackError):  # a server that does not answer runs nothing
            query(runtime, _END.format(bootstrap.literal(name)))
        raise


def schemas(runtime: WarehouseRuntime, database: str | None = None) -> list[str]:
    """The schemas of the role ``dbt``: all that a backup contains, and all that a restore replaces."""
    return query(runtime, _SCHEMAS, database)


def refuse_while_busy(runtime: WarehouseRuntime, command: str) -> None:
    """Refuse while the orchestrator executes a run, or a client of the role ``dbt`` is busy, such as a dbt typed by hand.

    Raises:
        RunInProgress: the data is in use; ``command`` is what to type afterwards.
    """
    runs = pipeline.active_runs(runtime)
    busy = query(runtime, _BUSY)
    if runs or busy:
        raise RunInProgress(
            f"A run is in progress: {', '.join(run.job for run in runs)}." if runs else "A session is using the data.",
            "\n".join(map(str, runs or busy)),
            f"Wait until it ends, then: {command}",
        )
