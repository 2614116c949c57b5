"""Any input on the command line or in `.env`: the exit code is one of docs/commands.md, there is no traceback, and no input is executed.

The commands run in this process, with a fake docker program that answers like an engine with PostgreSQL and Dagster up
and records its arguments, so that a value can be followed to the program that receives it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke import Collection, Program

import tasks
from switchyard import ROOT, errors, orchestrators, reference

ENGINE = """#!/bin/sh
printf '%s\\0' "$#" "$@" >> "$RECORD"
case "$1" in
version) echo 26.1.5 ;;
compose) if [ "$2" = version ]; then echo 2.26.1; fi ;;
image) echo '{}' ;;
info) printf '8000000000\\t/nowhere\\n' ;;
ps) case "$*" in *publish=*) ;; *)
  printf 'a\\tx-postgres-1\\tpostgres\\t\\t\\trunning\\tUp (healthy)\\t\\n'
  printf 'b\\tx-dagster-code-1\\tdagster-code\\tdagster\\t\\trunning\\tUp (healthy)\\t\\n' ;; esac ;;
esac
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake docker is a POSIX shell script")

CODES = {*(kind.code for kind in errors.StackError.__subclasses__()), *reference.OTHERS}

# Each would create the file "canary" in the current folder if it reached a shell.
INJECTIONS = [
    "; touch canary", "$(touch canary)", "`touch canary`", "| touch canary", "& touch canary &", "\n touch canary\n", "' ; touch canary '",
    '" ; touch canary "', "'; copy (select 1) to program 'touch canary'; --", "\\! touch canary", "--help; touch canary", "-- --rm",
    "../../../etc/passwd", "a/../b", "{root}", "{port:x}", "${HOME}", "%s%n%d", "<!--", "\x1b[2J", "é漢", "-", "--", "",
]  # fmt: skip
# An argument may have any bytes but NUL; Python represents bytes that are not UTF-8 as these surrogates.
TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
HOSTILE = st.sampled_from(INJECTIONS) | TEXT | st.tuples(TEXT, st.sampled_from(INJECTIONS)).map("".join)
# Hypothesis also tries the constants in the code under test, so valid names are filtered out.
VALID = re.compile(
    "|".join(orchestrators.load_all(ROOT))
    + r"|daily|smoke|freshness|full_refresh|auto|docker|native|postgres|vendor|lean|shop|dagster-\w+|\d*[1-9]\d*|--?h\w*"
)
WORDS = st.sampled_from(["Dagster", "dagster ", "airflow\n", "--orch", "0", "-1", "None"])
NAMES = (HOSTILE | WORDS).filter(lambda name: not VALID.fullmatch(name))
KEYS = (
    "ORCHESTRATOR",
    "RUNTIME",
    "DBT_PROJECT",
    "DBT_PROFILES_DIR",
    "WAREHOUSE",
    "STACK_PG_BIN",
    "DAGSTER_PORT",
    "POSTGRES_IMAGE",
    "DBT_PASSWORD",
    "AIRFLOW_DB_PASSWORD",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, root) -> Iterator[SimpleNamespace]:
    """A copy of the checkout as the current folder, and a PATH that begins with the fake docker."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("compose", "docker", "rundbt", "dbt_project", ".env.example", "requirements.txt"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, folder / name)
    engine = folder / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    record = folder / "record"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tasks, "ROOT", folder)
        patch.setattr(
            orchestrators, "load_all", functools.cache(orchestrators.load_all)
        )  # it takes most of the time, and its result is always the same
        patch.setenv("PATH", f"{engine.parent}:/bin:/usr/bin")
        patch.setenv("RECORD", str(record))
        patch.setenv("COLUMNS", "200")
        yield SimpleNamespace(folder=folder, record=record)


def typed(checkout, *args: str) -> tuple[int, str, list[list[str]]]:
    """Run `invoke ARGS`; returns its exit code, its output and its calls of docker."""
    checkout.record.write_text("")
    (checkout.folder / "canary").unlink(missing_ok=True)
    out = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            Program(namespace=Collection.from_module(tasks)).run(["invoke", *args])
        except SystemExit as end:
            code = end.code or 0
    assert not (checkout.folder / "canary").exists(), args
    assert "Traceback" not in out.getvalue()
    assert code in CODES, (code, out.getvalue())
    words = checkout.record.read_bytes().decode("utf-8", "surrogateescape").split("\0")
    calls = []
    while words[0]:
        count = 1 + int(words[0])
        calls.append(words[1:count])
        words = words[count:]
    return code, out.getvalue(), calls


def changing(calls: list[list[str]]) -> list[list[str]]:
    """The calls of docker that would change something."""
    reading = ("version",), ("compose", "version"), ("ps",), ("info",), ("image", "inspect"), ("image", "ls"), ("volume", "ls")
    return [call for call in calls if not {tuple(call[:1]), tuple(call[:2])} & {*reading}]


@pytest.mark.parametrize(
    "args",
    [("up", "--orch"), ("up", "--runtime"), ("up", "--integration"), ("switch",), ("switch", "dagster", "--timeout"), ("build", "--orch"),
     ("run", "--job"), ("use",), ("logs", "--service"), ("logs", "--tail"), ("backup", "--file"), ("restore",), ("clean", "--runtime")],
    ids=" ".join,
)  # fmt: skip
@given(NAMES)
def test_a_hostile_name_is_refused_and_nothing_is_done(checkout, args, value) -> None:
    code, output, calls = typed(checkout, *args[:-1], f"{args[-1]}={value}") if args[-1].startswith("--") else typed(checkout, *args, value)
    assert code or "Usage:" in output, output
    assert changing(calls) == []


@given(HOSTILE)
def test_a_query_reaches_psql_as_one_word(checkout, query) -> None:
    code, _, calls = typed(checkout, "sql", query)
    if query.startswith("-"):  # a flag to Invoke
        assert changing(calls) == []
    else:
        assert code == 0
        (sent,) = changing(calls)
        assert sent[-2:] == ["--command", query]


@given(st.sampled_from(KEYS), HOSTILE, st.sampled_from(["{}", "'{}'", '"{}"']), st.sampled_from(["status", "doctor"]))
def test_a_hostile_value_in_env_is_never_executed(checkout, key, value, quoted, task) -> None:
    (checkout.folder / ".env").write_text(f"{key}={quoted.format(value)}\n", encoding="utf-8", errors="surrogateescape")
    try:
        typed(checkout, task)
    finally:
        (checkout.folder / ".env").unlink()


@given(st.binary(max_size=60))
def test_any_bytes_can_be_the_env_file(checkout, content) -> None:
    (checkout.folder / ".env").write_bytes(content)
    try:
        typed(checkout, "status")
    finally:
        (checkout.folder / ".env").unlink()
