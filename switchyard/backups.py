"""Back up the warehouse to one file, and restore it: pg_dump and pg_restore as the role ``dbt``, on either runtime."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from switchyard import bootstrap, console, diagnosis, faults, warehouse
from switchyard import project as projects
from switchyard.errors import BadBackup, BadUsage, IncompatibleData, NoSpace, StackError
from switchyard.runner import shown
from switchyard.runtimes import both
from switchyard.runtimes.runtime import WarehouseRuntime
from switchyard.settings import PROJECT_NAME, keep_private

FOLDER = "backups"
MAGIC = b"PGDMP"
ARCHIVE = (1, 15)  # the format of PostgreSQL 16's archives; it reads older ones too
NAME = "invoke restore"  # the name of the session, by which an interrupted one is found
SAVING = "invoke backup"  # the same
ANOTHER = "Restore a file that `invoke backup` has written."
_PUBLIC = "create schema if not exists public"  # after a file without it, there is none


def default_file(root: Path, now: datetime, database: str) -> Path:
    """The default file of a backup: in ``backups/`` of the checkout, named after the project and the time in UTC."""
    name = PROJECT_NAME if database == bootstrap.WAREHOUSE else f"{PROJECT_NAME}-{database}"
    return root / FOLDER / f"{name}-{now.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}.dump"


def partial_file(root: Path, target: Path) -> Path:
    """Where the backup of the checkout ``root`` is written until it is complete: in the same folder, under a fixed name."""
    return target.with_name(f".switchyard-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}.partial")


def check_header(head: bytes, name: str) -> None:
    """Check the first seven bytes of a file.

    Raises:
        BadBackup: it is not an archive in pg_dump's custom format.
        IncompatibleData: only a newer PostgreSQL can read it.
    """
    if head[:5] != MAGIC or len(head) < 7:
        raise BadBackup(f"{name} is not a backup.", "It does not begin like an archive in pg_dump's custom format.", "invoke backup")
    if tuple(head[5:7]) > ARCHIVE:
        raise IncompatibleData(
            f"{name} was made by a newer PostgreSQL, whose archives version 16 does not read.",
            f"Its format is {head[5]}.{head[6]}; PostgreSQL 16 reads up to {ARCHIVE[0]}.{ARCHIVE[1]}.",
            "Make the dump with the pg_dump of PostgreSQL 16.",
        )


def pattern(schema: str) -> str:
    """The option of pg_dump that selects exactly one schema, with any name."""
    quoted = schema.replace('"', '""')
    return f'--schema="{quoted}"'


def _lock_timeout(runtime: WarehouseRuntime) -> str:
    """The option that gives pg_dump the role's lock timeout, which it would override; 0 means no limit in both."""
    return f"--lock-wait-timeout={runtime.settings['LOCK_TIMEOUT']}s"


def backup(runtime: WarehouseRuntime, file: str | None) -> None:
    """Write the schemas of the role ``dbt`` into ``file``, or one in ``backups/``; afterwards PostgreSQL is up or down as before.

    Raises:
        BadUsage: ``file`` exists, or its folder does not.
        BadBackup: there is no data, or it could not be written.
        NoSpace: there is no room for it.
    """
    warehouse.require_shared(runtime, "backup")
    _announce(_save(runtime, file, projects.database(runtime.settings)))


def before_deletion(runtime: WarehouseRuntime) -> None:
    """Back up each project's data before it is deleted; without data, do nothing.

    Raises:
        StackError: a backup failed; the next step is to delete without one.
    """
    if not runtime.data.exists():
        return
    try:
        with warehouse.server(runtime):
            # Not in the project's own database: one that was selected while PostgreSQL was up does not exist yet.
            for database in warehouse.query(runtime, warehouse.DATABASES, bootstrap.WAREHOUSE) or [bootstrap.WAREHOUSE]:
                _announce(_save(runtime, None, database, empty_is_fine=True))
    except StackError as error:
        error.what += " Nothing was deleted."
        error.next = "\n".join(filter(None, [error.next, "To delete without a backup: invoke clean --volumes --no-backup"]))
        raise


def restore(runtime: WarehouseRuntime, file: str, *, yes: bool) -> None:
    """Replace everything that the role ``dbt`` owns with the content of ``file``, in one transaction.

    Raises:
        BadUsage: there is no such file, or the question was not answered with yes.
        BadBackup: it is not a complete backup, or PostgreSQL rejects it; the data is unchanged.
        IncompatibleData: a newer PostgreSQL made it.
        RunInProgress: the data is in use.
    """
    warehouse.require_shared(runtime, "restore")
    with _explained(Path(file)):
        if not stat.S_ISREG(os.stat(file).st_mode):  # it is read twice
            raise BadUsage(f"{file} is not a regular file.", "", ANOTHER)
        archive = open(file, "rb", buffering=0)  # unbuffered: programs inherit the descriptor and its position
    with archive:
        check_header(archive.read(7), file)
        with warehouse.server(runtime):
            with console.Waiting("read", file):
                _check(runtime, archive, file)
            warehouse.refuse_while_busy(runtime, _restore_command(Path(file)))
            existing = warehouse.schemas(runtime)
            if existing and not yes and not console.confirm(f"Replace all data in the schemas {', '.join(existing)} with that of {file}?"):
                raise BadUsage("Nothing was restored.", "The question was not answered with yes.", f"{_restore_command(Path(file))} --yes")
            faults.point("read")
            with console.Waiting("restore", file) as waiting:
                _restore(runtime, archive, file)
            faults.point("restored")
            console.done(f"Restored {file} after {waiting.seconds:.0f} s: the schemas {', '.join(warehouse.schemas(runtime))}")


def _save(runtime: WarehouseRuntime, file: str | None, database: str, empty_is_fine: bool = False) -> Path | None:
    root = runtime.settings.root
    target = Path(file) if file else default_file(root, datetime.now(timezone.utc), database)
    with _explained(target):
        if not runtime.runner.dry:
            if not file:
                target.parent.mkdir(mode=0o700, exist_ok=True)
                keep_private(target.parent)
            _require_free(target)
    if not runtime.data.exists():
        raise BadBackup("There is nothing to back up.", f"The runtime {runtime.name} has no data.", "invoke up run")
    with warehouse.server(runtime):
        schemas = warehouse.schemas(runtime, database)
        if not schemas and not runtime.runner.dry:
            if empty_is_fine:
                return None
            raise BadBackup("There is nothing to back up.", "The role dbt owns no schema in the warehouse.", "invoke up run")
        with _explained(target), console.Waiting("back up", "the warehouse"):
            pg_dump_options = [pattern(schema) for schema in schemas]
            pg_dump_options += [f"--extension={extension}" for extension in warehouse.query(runtime, warehouse.EXTENSIONS, database)]
            _dump(runtime, database, pg_dump_options, partial_file(root, target), target)
    return target


def _dump(runtime: WarehouseRuntime, database: str, pg_dump_options: list[str], partial: Path, target: Path) -> None:
    """Write an archive of what ``pg_dump_options`` select as ``partial``, and rename it to ``target`` when it is complete."""
    argv, env = runtime.client("pg_dump", "--format=custom", _lock_timeout(runtime), *pg_dump_options, both.connection(database, SAVING))
    if runtime.runner.dry:
        runtime.runner.transfer(argv, None, None, env)
        return
    partial.unlink(missing_ok=True)  # left by a backup that was killed
    try:
        with open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "r+b", buffering=0) as archive:
            with warehouse.ended_when_interrupted(runtime, SAVING):
                done = runtime.runner.transfer(argv, None, archive, env)
            if done.code:
                raise _failed(f"{target} could not be written.", done.stderr, "invoke logs --service postgres", target.parent)
            os.fsync(archive.fileno())
            faults.point("dumped")
            _check(runtime, archive, str(target), target.parent)
            faults.point("checked")
        _require_free(target)
        partial.rename(target)
        faults.point("named")
    finally:
        partial.unlink(missing_ok=True)


def _restore(runtime: WarehouseRuntime, archive: BinaryIO, name: str) -> None:
    # As dbt, and by pg_restore, which passes nothing in the file to psql: a hostile file can do no more than a model.
    database = both.connection(projects.database(runtime.settings), NAME) + f" options='-c {bootstrap.REPLACE}=on'"
    argv, env = runtime.client("pg_restore", "--single-transaction", "--no-owner", "--no-privileges", "--dbname", database)
    archive.seek(0)
    with warehouse.ended_when_interrupted(runtime, NAME):
        done = runtime.runner.transfer(argv, archive, None, env)
    if done.code:
        raise _failed(f"{name} was not restored; the data is as it was.", done.stderr, ANOTHER)
    if not runtime.project.shop:
        warehouse.change(runtime, _PUBLIC)


def _check(runtime: WarehouseRuntime, archive: BinaryIO, name: str, folder: Path | None = None) -> None:
    """Have pg_restore read the whole archive, without restoring it."""
    argv, env = runtime.client("pg_restore", "--file=-")
    archive.seek(0)
    done = runtime.runner.transfer(argv, archive, None, env)
    if done.code:
        raise _failed(f"{name} is not a complete backup.", done.stderr, ANOTHER, folder)


def _failed(what: str, output: str, next: str, folder: Path | None = None) -> StackError:
    """The error for a program that failed; a full ``folder`` is the reason, whatever the program printed."""
    why = "\n".join(output.strip().splitlines()[-8:])
    if "no space left" in output.lower() or (folder and shutil.disk_usage(folder).free < 2**16):
        return NoSpace(what, why, "Free some space, then try again.")
    return BadBackup(what, why, next)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn an error of the file system into one for the user.

    Raises:
        NoSpace: the disk is full.
        BadUsage: anything else about ``file`` or its folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in diagnosis.NO_ROOM:
            raise NoSpace(f"{file} could not be written.", error.strerror or str(error), "Free some space, then try again.") from None
        raise BadUsage(f"{file} cannot be used.", error.strerror or str(error), "Name another file.") from None


def _require_free(target: Path) -> None:
    if not target.parent.is_dir():
        raise BadUsage(f"There is no folder {target.parent}.", "", f"Make it, or name a file elsewhere than {target}.")
    if os.path.lexists(target):
        raise BadUsage(f"{target} exists already.", "A backup never replaces a file.", "Name another file, or none: invoke backup")


def _announce(target: Path | None) -> None:
    if target is None:
        console.note("The warehouse has no data to back up.")
    elif not console.dry:
        console.ok(f"Backup written to {target} ({target.stat().st_size / 1e6:.1f} MB)")
        console.note(f"  {_restore_command(target)} restores it.")


def _restore_command(file: Path) -> str:
    """The command, which works from any folder and with any file name."""
    return shown(["invoke", "restore", str(file.absolute())])
