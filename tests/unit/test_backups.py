"""The names of backups, and which files are accepted as one."""

import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from switchyard import backups, settings
from switchyard.errors import BadBackup, IncompatibleData
from switchyard.runner import Runner
from switchyard.runtimes.runtime import POSTGRES

ROOT = Path("/shop")


def test_a_backup_is_named_after_the_project_and_the_time_in_utc() -> None:
    now = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert backups.default_file(ROOT, now, "airflow") == ROOT / "backups" / "switchyard-20260228T200000Z.dump"
    assert backups.default_file(ROOT, now, "jaffle").name == "switchyard-jaffle-20260228T200000Z.dump"


def test_a_checkout_finds_only_its_own_leftovers_under_any_file_name() -> None:
    first, second = (backups.partial_file(ROOT, Path("/mnt", name)) for name in ("a.dump", "b.dump"))
    assert first == second
    assert first.parent == Path("/mnt")
    assert backups.partial_file(Path("/other"), Path("/mnt/a.dump")) != first


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param("marts", '--schema="marts"', id="plain"),
        pytest.param("m*", '--schema="m*"', id="a star"),
        pytest.param('a"b.c', '--schema="a""b.c"', id="a quote"),
    ],
)
def test_a_schema_is_dumped_by_its_exact_name(schema: str, expected: str) -> None:
    assert backups.pattern(schema) == expected


@pytest.mark.parametrize("head", [b"PGDMP\x01\x0f", b"PGDMP\x01\x0e"], ids=["16", "15"])
def test_an_archive_of_this_or_an_older_postgresql_is_accepted(head: bytes) -> None:
    backups.check_header(head, "x.dump")


@pytest.mark.parametrize(
    ("head", "error"),
    [
        pytest.param(b"", BadBackup, id="empty"),
        pytest.param(b"PGDMP", BadBackup, id="cut off"),
        pytest.param(b"--\n-- P", BadBackup, id="plain SQL"),
        pytest.param(b"PGDMP\x01\x10", IncompatibleData, id="of PostgreSQL 17"),
    ],
)
def test_anything_else_is_refused(head: bytes, error: type) -> None:
    with pytest.raises(error, match=r"x\.dump"):
        backups.check_header(head, "x.dump")


def test_the_databases_are_listed_even_if_the_projects_own_does_not_exist_yet(root, tmp_path, capsys) -> None:
    asked = []

    def client(program, *args):
        asked.append(args[args.index("--dbname") + 1])
        return [sys.executable, "-c", ""], {}

    loaded = settings.defaults(root, {})
    other = {**loaded.values, "SWITCHYARD_SOURCE_PATH": str(root / "tests" / "projects" / "small")}
    backups.before_deletion(
        SimpleNamespace(
            settings=replace(loaded, root=tmp_path, values=other),
            data=SimpleNamespace(exists=lambda: True),
            services=lambda: [SimpleNamespace(name=POSTGRES, up=True, health="healthy")],
            project=SimpleNamespace(shared=False),
            runner=Runner({}),
            client=client,
        )
    )
    assert asked == ["airflow", "airflow"]
    assert "no data to back up" in capsys.readouterr().out
