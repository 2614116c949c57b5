"""The commands that a start, a backup and a restore run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from invoke.context import Context

import tasks
from switchyard import backups, orchestrators, settings
from switchyard.runner import Result, Runner
from switchyard.runtimes.docker.runtime import Docker
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import WholeRuntime
from switchyard.settings import Settings

POSTGRES = "0\tp-postgres-1\tpostgres\t\t\trunning\tUp 1 second (healthy)\t"


@dataclass(frozen=True)
class Noting(Runner):
    """Runs nothing, and answers as if a PostgreSQL with one schema were up, and no other container.

    Attributes:
        commands: the commands that it was called with, in order.
    """

    commands: list[list[str]] = field(default_factory=list)

    def ask(self, argv: Sequence[str], env: Mapping[str, str] | None = None, seconds: float | None = None) -> Result:
        self.commands.append(list(argv))
        if "ps" in argv:
            return Result(0, POSTGRES)
        return Result(0, "marts" if "pg_namespace" in argv[-1] else "")

    def change(self, argv: Sequence[str], *_: object, **__: object) -> Result:
        self.commands.append(list(argv))
        return Result(0)

    transfer = follow = change

    def hand_over(self, argv: Sequence[str], *_: object, **__: object) -> int:
        return self.change(argv).code

    def running(self, program: str) -> list[list[str]]:
        """The commands that run a program."""
        return [argv for argv in self.commands if any(Path(word).stem == program for word in argv)]


@pytest.fixture
def checkout(tmp_path, root) -> Settings:
    """The settings of a checkout that has its secrets."""
    shutil.copy(root / ".env.example", tmp_path)
    for name in ("compose", "docker"):
        shutil.copytree(root / name, tmp_path / name)
    return settings.load(tmp_path, {"DBT_PROJECT": str(root / "dbt_project")})[0]


@pytest.fixture(params=[Docker, Native], ids=["docker", "native"])
def runtime(request, checkout, tmp_path, monkeypatch) -> WholeRuntime:
    """A runtime whose PostgreSQL is up, with a runner that only records."""
    made = request.param(checkout, orchestrators.load_all(checkout.root), Noting({}), {})
    monkeypatch.setattr(made.data, "exists", lambda: True)
    if isinstance(made, Native):
        made.postgres.data = tmp_path
        (tmp_path / "postmaster.opts").touch()
        monkeypatch.setattr(made.postgres, "server", psutil.Process)
    return made


def start_save_and_restore(runtime: WholeRuntime, folder: Path) -> Noting:
    """As `invoke up`, `backup`, `restore` and `sql`; returns the runner with their commands."""
    (folder / "of-before.dump").write_bytes(b"PGDMP\x01\x0f")
    runtime.start_postgres(1, lambda line: None)
    backups.backup(runtime, str(folder / "new.dump"))
    backups.restore(runtime, str(folder / "of-before.dump"), yes=True)
    runtime.sql("select 1", tty=False, session="x")
    assert isinstance(runtime.runner, Noting)
    return runtime.runner


def test_no_password_is_in_a_command_line_which_others_can_read(runtime, tmp_path) -> None:
    runner = start_save_and_restore(runtime, tmp_path)
    passwords = {key: value for key, value in runtime.settings.values.items() if key.endswith("PASSWORD")}
    assert {"POSTGRES_PASSWORD", "DBT_PASSWORD"} < passwords.keys()
    assert all(runner.running(program) for program in ("psql", "pg_dump", "pg_restore"))
    assert not [key for key, value in passwords.items() if value in str(runner.commands)]


def test_a_restore_is_one_transaction(runtime, tmp_path) -> None:
    writes = [argv for argv in start_save_and_restore(runtime, tmp_path).running("pg_restore") if "--dbname" in argv]
    assert len(writes) == 1
    assert "--single-transaction" in writes[0]


def test_an_interrupted_restore_ends_its_session_which_a_container_would_continue(runtime, tmp_path, monkeypatch) -> None:
    def interrupted(self: Noting, argv: Sequence[str], *args: object) -> Result:
        self.commands.append(list(argv))
        if "--dbname" in argv:
            raise KeyboardInterrupt
        return Result(0)

    monkeypatch.setattr(Noting, "transfer", interrupted)
    (tmp_path / "of-before.dump").write_bytes(b"PGDMP\x01\x0f")
    with pytest.raises(KeyboardInterrupt):
        backups.restore(runtime, str(tmp_path / "of-before.dump"), yes=True)
    restored, ended = runtime.runner.commands[-2:]
    assert "application_name='invoke restore'" in restored[restored.index("--dbname") + 1]
    assert "pg_terminate_backend" in ended[-1]
    assert "'invoke restore'" in ended[-1]


def test_an_interrupted_backup_ends_its_session_which_would_keep_its_locks(runtime, tmp_path, monkeypatch) -> None:
    def interrupted(self: Noting, argv: Sequence[str], *args: object) -> Result:
        self.commands.append(list(argv))
        raise KeyboardInterrupt

    monkeypatch.setattr(Noting, "transfer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backups.backup(runtime, str(tmp_path / "new.dump"))
    dumped, ended = runtime.runner.commands[-2:]
    assert "application_name='invoke backup'" in dumped[-1]
    assert "pg_terminate_backend" in ended[-1]
    assert "'invoke backup'" in ended[-1]


def test_an_interrupted_statement_is_ended_on_the_server(runtime, monkeypatch) -> None:
    def interrupted(self: Noting, argv: Sequence[str], *_: object, **__: object) -> int:
        self.commands.append(list(argv))
        raise KeyboardInterrupt

    monkeypatch.setattr(Noting, "hand_over", interrupted)
    monkeypatch.setattr(tasks, "runtime_of", lambda _: runtime)
    with pytest.raises(KeyboardInterrupt):
        tasks.ask_warehouse(Context(), "sql", "delete from x")
    typed, ended = runtime.runner.commands[-2:]
    session = f"'psql of process {os.getpid()}'"
    assert f"application_name={session}" in typed[typed.index("--dbname") + 1]
    assert "pg_terminate_backend" in ended[-1]
    assert session in ended[-1]


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_is_installed_if_the_user_has_programs(checkout, cache) -> None:
    loaded = replace(checkout, values={**checkout.values, "STACK_PG_BIN": "/usr/lib/postgresql/16/bin"})
    runtime = Native(loaded, {}, Noting({}), {})
    runtime.images.build(["postgres"], cache=cache, on_line=lambda line: None)
    assert runtime.runner.commands == []


def test_a_baked_start_removes_the_projects_mount(checkout) -> None:
    runner = Noting({})
    known = orchestrators.load_all(checkout.root)
    Docker(checkout, known, runner, {}).start(known["dagster"], baked=True, timeout=1, on_line=lambda line: None)
    (start,) = runner.commands
    mounted, taken_away = (Path(file).read_text() for flag, file in pairwise(start) if flag == "-f")
    assert ":/opt/dbt/project:ro" in mounted
    assert "volumes: !override" in taken_away
    assert ":/opt/dbt/project:ro" not in taken_away


@pytest.mark.parametrize(("image", "other"), [("postgres:15-bookworm", True), ("postgres:16-bookworm", False)])
def test_a_build_on_a_base_image_of_another_version_reports_it(checkout, root, capsys, image, other) -> None:
    loaded = replace(checkout, values={**checkout.values, "POSTGRES_IMAGE": image, "AIRFLOW_IMAGE": "apache/airflow:3.0.0-python3.12"})
    Docker(loaded, orchestrators.load_all(root), Noting({})).images.build(["postgres"], on_line=lambda _: None)
    found = capsys.readouterr().out
    assert ("POSTGRES_IMAGE has the version 15-bookworm" in found) == other
    assert "AIRFLOW_IMAGE" not in found
