"""The roles and databases on the shared server, updated at every `up`: an init script alone would not run on old volumes."""

from __future__ import annotations

from collections.abc import Iterable

from switchyard.orchestrators import Orchestrator
from switchyard.settings import Settings

WAREHOUSE = "airflow"  # the shared default database: Airflow's metadata, and the dbt schemas beside it
DBT_ROLE = "dbt"
# The length of the random passwords of `switchyard.settings`, which cannot be guessed. Shorter ones are hashed 4,096 times at each
# sign-in, to slow down guessing. That is half the time of a connection, and Dagster opens one or more for every event of a run.
RANDOM = 24
# Servers of older versions do not have this setting. Such a server may be started to back it up.
_SCRAM = "select from pg_settings, set_config(name, '{}', false) where name = 'scram_iterations';"
REPLACE = "switchyard.replace"  # with this setting, a session's first new schema replaces all schemas that its role owns

# pg_restore cannot drop, in its transaction, what is not in its file. So the server does, at the first schema that a session with
# `REPLACE` creates, as that session's role. The function is in pg_catalog, because no other role can create anything there.
_REPLACE = f"""\
create or replace function pg_catalog.switchyard_replace() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    if current_setting('{REPLACE}', true) = 'on' then
        perform set_config('{REPLACE}', 'off', true);
        -- In a database that the role owns, this includes public; the file creates it again, or else `up` does.
        for name in select nspname from pg_namespace where pg_has_role(nspowner, 'usage') loop
            execute format('drop schema %I cascade', name);
        end loop;
    end if;
end $$;
select 'create event trigger switchyard_replace on ddl_command_start when tag in (''CREATE SCHEMA'')
        execute function pg_catalog.switchyard_replace()'
where not exists (select from pg_event_trigger where evtname = 'switchyard_replace') \\gexec"""


SIZES = """
select coalesce(string_agg(format('%s %s', datname, pg_size_pretty(pg_database_size(oid))), ', ' order by datname), '')
from pg_database where datallowconn and not datistemplate and datname <> 'postgres'
"""


def literal(text: str) -> str:
    """``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _role(name: str, password: str, alone: bool) -> str:
    """Create a role, or reset its rights and its password to those in `.env`; only a superuser may revoke ``superuser``."""
    rights = "nocreatedb nocreaterole" if alone else "nosuperuser nocreatedb nocreaterole"
    return f"""\
select 'create role "{name}" login' where not exists (select from pg_roles where rolname = {literal(name)}) \\gexec
alter role "{name}" with login {rights} password {literal(password)};"""


def make_database(name: str, owner: str = "") -> str:
    """Create a database, if none has that name; without ``owner``, it belongs to the superuser."""
    own = f' owner "{owner}"' if owner else ""
    return f"select 'create database \"{name}\"{own}' where not exists (select from pg_database where datname = {literal(name)}) \\gexec"


def _only(role: str, schema: str) -> str:
    """Limit the search path of ``role`` to one schema: by default it begins with a schema of its name, which others may create."""
    return f'alter role "{role}" set search_path to {schema}, pg_temp;'


def sql(settings: Settings, orchestrators: Iterable[Orchestrator], database: str = WAREHOUSE, *, alone: bool = False) -> str:
    """The psql script, to be run by the superuser in the warehouse database; running it again changes nothing.

    Each orchestrator has a role that owns its metadata database, and the role ``dbt`` may create schemas in the warehouse. A dbt
    project other than the shop has its own database, which belongs to ``dbt``, with its schema ``public``. No other role has a schema
    that ``dbt`` can create in its search path: a model could put a table or a function there that the role would use.
    Passwords are set to those in ``.env``, so that an old volume cannot lock anybody out.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        database: the project's; a plain identifier.
        alone: for a server other than the stack's own, which others may use too. Its superuser and its existing objects are not
            changed, and what `invoke restore` needs is left out.
    """
    parts = ["\\set ON_ERROR_STOP on", "set client_min_messages = warning;"]
    quiet = "set log_statement = none; set log_min_error_statement = panic;"  # no password reaches the server's log
    if alone:  # a cloud's administrator may not set that
        parts += ["\\set ON_ERROR_STOP off", quiet, "\\set ON_ERROR_STOP on", make_database(WAREHOUSE)]
    else:
        parts += [
            quiet,
            "set search_path to pg_catalog, pg_temp;",  # for this session, in which the role's setting does not apply yet
            f"alter role postgres password {literal(settings['POSTGRES_PASSWORD'])};",
            _only("postgres", "pg_catalog"),
        ]
    parts += [
        _role(DBT_ROLE, settings["DBT_PASSWORD"], alone),
        f"alter role {DBT_ROLE} set timezone to 'UTC';",
        f"alter role {DBT_ROLE} set lock_timeout to '{settings['LOCK_TIMEOUT']}s';",
        f"alter role {DBT_ROLE} reset search_path;",  # older stacks set it for every database
        f"alter role {DBT_ROLE} in database {WAREHOUSE} set search_path to marts, intermediate, staging, snapshots, raw;",
    ]
    for orchestrator in orchestrators:
        name = orchestrator.database
        if not name:
            continue
        random = len(settings[orchestrator.database_key]) >= RANDOM
        parts += [
            _SCRAM.format(1 if random else 4096),
            _role(name, settings[orchestrator.database_key], alone),
            _only(name, "public"),
            make_database(name, name),
            f'alter database "{name}" owner to "{name}";',
            f'revoke all on database "{name}" from public;',
        ]
    parts.append(_SCRAM.format(4096))
    if not alone:  # so that roles cannot even read the catalogue of databases that they do not use
        parts.append("revoke all on database postgres, template1 from public;")
    parts.append(f"grant connect, create, temporary on database {WAREHOUSE} to {DBT_ROLE};")
    replace = [] if alone else [_REPLACE]
    parts += replace
    if database != WAREHOUSE:
        parts += [
            make_database(database, DBT_ROLE),
            f'revoke all on database "{database}" from public;',
            f'\\connect "{database}"',
            "set client_min_messages = warning;",
            "create schema if not exists public authorization pg_database_owner;",
            *replace,
        ]
    return "\n".join(parts) + "\n"
