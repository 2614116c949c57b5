"""The roles and databases on the shared server, made (again) at every `up`: an init script alone would miss old volumes."""

from __future__ import annotations

from collections.abc import Iterable

from switchyard.orchestrators import Orchestrator
from switchyard.settings import Settings

WAREHOUSE = "airflow"  # the shared default database: Airflow's metadata, and the dbt schemas beside it
DBT_ROLE = "dbt"
# A password of so many characters, as `switchyard.settings` makes them, is not guessed. The others are hashed 4,096 times at each
# sign-in, to slow down whoever guesses: half the time of a connection, and Dagster opens one or more for every event of a run.
RANDOM = 24
# A server of an older version does not know it, and is started to back it up.
_SCRAM = "select from pg_settings, set_config(name, '{}', false) where name = 'scram_iterations';"
REPLACE = "switchyard.replace"  # the setting with which a session's first new schema takes the place of all that its role owns

# pg_restore cannot drop in its transaction what its file does not know of, so the server does: at the first schema that a
# session with `REPLACE` makes, as that session's own role. In pg_catalog, because no other role can put anything there.
_REPLACE = f"""\
create or replace function pg_catalog.switchyard_replace() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    if current_setting('{REPLACE}', true) = 'on' then
        perform set_config('{REPLACE}', 'off', true);
        -- In a database that belongs to the role, public is among them; the file makes it again, or else `up` does.
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
    """Make a role, or give it the rights and the password of `.env` again; only a superuser may take ``superuser`` from one."""
    rights = "nocreatedb nocreaterole" if alone else "nosuperuser nocreatedb nocreaterole"
    return f"""\
select 'create role "{name}" login' where not exists (select from pg_roles where rolname = {literal(name)}) \\gexec
alter role "{name}" with login {rights} password {literal(password)};"""


def make_database(name: str, owner: str = "") -> str:
    """Make a database where there is none of that name; without an owner, it is the superuser's."""
    own = f' owner "{owner}"' if owner else ""
    return f"select 'create database \"{name}\"{own}' where not exists (select from pg_database where datname = {literal(name)}) \\gexec"


def _only(role: str, schema: str) -> str:
    """Have ``role`` look in one schema: by default it looks first in one of its own name, which whoever may make schemas can make."""
    return f'alter role "{role}" set search_path to {schema}, pg_temp;'


def sql(settings: Settings, orchestrators: Iterable[Orchestrator], database: str = WAREHOUSE, *, alone: bool = False) -> str:
    """The psql script, to be run by the superuser in the warehouse database; running it again changes nothing.

    One role per orchestrator owns its own metadata database, and the role ``dbt`` may make schemas in the warehouse. Another
    dbt project than the shop has a database of its own, which belongs to ``dbt``, its schema ``public`` included. No other role looks
    in a schema that ``dbt`` can make: a model could put a table or a function there that the role takes for its own.
    Passwords follow ``.env``, so that an old volume cannot lock anybody out.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        database: the project's; a plain identifier.
        alone: for another server than the stack's own, which may be somebody else's as well: its superuser, and what is there
            already, stay as they are, and `invoke restore` has no use for it.
    """
    parts = ["\\set ON_ERROR_STOP on", "set client_min_messages = warning;"]
    quiet = "set log_statement = none; set log_min_error_statement = panic;"  # no password reaches the server's log
    if alone:  # a cloud's administrator may not set that
        parts += ["\\set ON_ERROR_STOP off", quiet, "\\set ON_ERROR_STOP on", make_database(WAREHOUSE)]
    else:
        parts += [
            quiet,
            "set search_path to pg_catalog, pg_temp;",  # this session's own, until the role has it
            f"alter role postgres password {literal(settings['POSTGRES_PASSWORD'])};",
            _only("postgres", "pg_catalog"),
        ]
    parts += [
        _role(DBT_ROLE, settings["DBT_PASSWORD"], alone),
        f"alter role {DBT_ROLE} set timezone to 'UTC';",
        f"alter role {DBT_ROLE} set lock_timeout to '{settings['LOCK_TIMEOUT']}s';",
        f"alter role {DBT_ROLE} reset search_path;",  # older stacks have it for every database
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
    if not alone:  # where a role has no business, it cannot even look at the catalogue
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
