"""Backups of a project in the schema `public`, which most tutorials use."""

from __future__ import annotations

from .. import runs


def test_everything_in_public_is_saved_and_restored(stack, reference, tmp_path) -> None:
    stack.on("dagster")
    file = tmp_path / "public.dump"
    for change in ("create extension citext", "create table kinds as select 'A'::citext as kind"):  # as a hook and a model might
        stack.invoke("sql", change)
    stack.invoke("backup", "--file", str(file))
    for change in ("drop table last cascade", "create table extra (a int)", "create function more() returns int return 1"):
        stack.invoke("sql", change)
    assert "Replace all data in the schemas public with" in stack.invoke("restore", str(file), code=2, stdin="n\n").stdout
    assert stack.sql("select to_regclass('last') is null, to_regclass('extra') is null") == "t\tf"
    stack.invoke("restore", str(file), "--yes")
    assert stack.hashes() == reference
    assert stack.sql("select to_regclass('extra') is null, to_regproc('more') is null") == "t\tt"
    assert stack.sql("select count(*) from kinds where kind = 'a'") == "1"
    stack.invoke("sql", "drop extension citext cascade")
    stack.invoke("sql", "drop table kinds")
    stack.invoke("run")
    assert stack.hashes() == reference


def test_a_backup_that_waits_for_a_lock_shows_who_has_it(stack, reference, tmp_path) -> None:
    stack.on("dagster")
    with runs.kept_waiting(stack, "backup", "--file", str(tmp_path / "locked.dump")) as output:
        assert "invoke backup waits for a lock that process" in output
        assert "select 'mine'" in output
    refused = stack.invoke("backup", "--file", str(tmp_path / "locked.dump"), code=2)
    assert "exists already" in refused.stderr


def test_clean_makes_a_backup_first(stack, reference) -> None:
    stack.on("dagster")
    output = stack.invoke("clean", "--volumes", stdin="n\n", code=2).stdout
    assert "Backup written to" in output
    assert stack.hashes() == reference
