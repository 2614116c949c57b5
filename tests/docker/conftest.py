"""One stack on a real Docker engine, shared by all tests: built once, from a copy of the checkout that tests may edit."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dotenv import dotenv_values

PROJECT = "switchyard-test"

# A table's rows as text, in the rows' own order: equal hashes mean equal content, whoever built it.
HASHES = """
select format('select %L as mart, count(*), md5(string_agg(t::text, chr(10) order by t::text)) from marts.%I t', tablename, tablename)
from pg_tables where schemaname = 'marts' order by tablename \\gexec
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """A checkout of its own, with the commands that a person types in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dbt = folder / "dbt_project"
        ports = {key: str(free_port()) for key in ("POSTGRES_PORT", "AIRFLOW_PORT", "DAGSTER_PORT", "PREFECT_PORT")}
        self.env = {**os.environ, **ports, "COMPOSE_PROJECT_NAME": PROJECT, "NO_COLOR": "1"}

    def invoke(self, *args: str, code: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Type `invoke ARGS`; unless ``code`` is None, it must end with that exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *args], cwd=self.folder, env=self.env, input=stdin, capture_output=True, text=True
        )
        shown = f"$ invoke {' '.join(args)}   -> {done.returncode}\n{done.stdout}{done.stderr}"
        print(shown)
        assert code is None or done.returncode == code, shown
        assert "Traceback" not in shown
        return done

    def status(self) -> dict:
        """`invoke status --json`, read."""
        return json.loads(self.invoke("status", "--json").stdout)

    def sql(self, query: str) -> str:
        """What `invoke sql` answers, without the frame."""
        return self.invoke("sql", f"copy ({query}) to stdout").stdout.strip()

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content hash of every mart."""
        out = self.invoke("sql", stdin=HASHES).stdout
        found = {name: (int(rows), digest) for name, rows, digest in re.findall(r"^ (\w+)\s*\|\s*(\d+) \| (\w{32})", out, re.M)}
        assert len(found) == 6, out
        return found

    def container(self, service: str) -> dict:
        """`docker inspect` of a service's container."""
        return json.loads(subprocess.check_output(["docker", "inspect", f"{PROJECT}-{service}-1"]))[0]

    def secrets(self) -> dict[str, str]:
        """What `.env` holds."""
        return dotenv_values(self.folder / ".env")

    @contextmanager
    def edited(self, path: str, text: str) -> Iterator[None]:
        """A file of the dbt project with another content, or a new file, for a while."""
        file = self.dbt / path
        before = file.read_bytes() if file.exists() else None
        file.write_text(text)
        try:
            yield
        finally:
            file.write_bytes(before) if before is not None else file.unlink()

    def on(self, name: str) -> None:
        """Make ``name`` the active orchestrator, however things stand."""
        active = self.status()["orchestrator"]
        if active is None:
            self.invoke("up", "--orch", name)
        elif active != name:
            self.invoke("switch", name)


@pytest.fixture(scope="session")
def stack(tmp_path_factory, root) -> Iterator[Stack]:
    """The stack, built and with Dagster up; everything of it is removed at the end."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        if os.environ.get("CI"):
            pytest.fail("No Docker engine answers, and under CI these tests must not be skipped.")
        pytest.skip("no Docker engine answers")
    folder = tmp_path_factory.mktemp("checkout") / "switchyard"
    tracked = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, text=True)
    for name in tracked.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    for command in (["init", "--quiet"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    stack = Stack(folder)
    try:
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("run")
        yield stack
    finally:
        stack.invoke("clean", "--volumes", "--images", "--yes", code=None)


@pytest.fixture(scope="session")
def reference(stack) -> dict[str, tuple[int, str]]:
    """The marts as the first run built them."""
    return stack.hashes()


@pytest.fixture(scope="module", params=["dagster", "prefect", "airflow"])
def orchestrator(request, stack) -> str:
    """Each orchestrator in turn, active."""
    stack.on(request.param)
    return request.param
