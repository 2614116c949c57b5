"""A checkout of its own with the commands that a person types in it, for the tests of both runtimes."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from dotenv import dotenv_values

from bench.rig import copy_checkout as copy_files
from switchyard import ports

ROOT = Path(__file__).resolve().parent.parent
LONG = bool(os.environ.get("CHAOS"))  # whether the long forms of tests run too
PORTS = ("POSTGRES_PORT", "AIRFLOW_PORT", "DAGSTER_PORT", "PREFECT_PORT")

# Every ordered pair of orchestrators once, each switch starting where the one before it ended.
TOUR = ["dagster", "airflow", "dagster", "prefect", "airflow", "prefect", "dagster"]
# One orchestrator, where it shows enough; the long form has all three.
DAGSTER = ["dagster", *(pytest.param(name, marks=pytest.mark.long) for name in ("airflow", "prefect"))]
# Those of every day; the long form has all six.
SHORT = [("dagster", "airflow"), ("airflow", "prefect")]
PAIRS = list(itertools.pairwise(TOUR))

# A table's rows as text, in an order that no server's locale changes: equal hashes mean equal content, whoever built it. Without the
# fingerprint of the loads, which is another one after each.
HASHES = """
select format(
    'select %L as mart, count(*), md5(string_agg(t, chr(10) order by t collate "C")) from '
    '(select (to_jsonb(m) - ''load_fingerprint'')::text as t from marts.%I m) r', tablename, tablename
)
from pg_tables where schemaname = 'marts' order by tablename \\gexec
"""

# Rows and content hash of every mart, whichever orchestrator built it, on whichever runtime. After a change of the dbt
# project that is meant to change them: take the new ones from the failing assertion.
MARTS = {name: tuple(value) for name, value in json.loads((ROOT / "tests" / "marts.json").read_text(encoding="utf-8")).items()}


# Of the shop.
LAST = ("dim_customers", "dim_dates", "dim_product_prices", "fct_daily_payments", "rpt_customer_cohorts", "rpt_sales_summary")

# Variables of a person's own, each with a value that would break what reads it.
POISON = {
    "PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGDATABASE": "none",
    "PGSERVICE": "none", "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere", "PGGSSENCMODE": "require", "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "none", "PGTARGETSESSIONATTRS": "standby", "PGDATA": "/nowhere",
    "PGOPTIONS": "-c default_transaction_read_only=on -c search_path=nowhere",
    "COMPOSE_FILE": "/nowhere.yaml", "COMPOSE_PROFILES": "none", "COMPOSE_PARALLEL_LIMIT": "0", "COMPOSE_ENV_FILES": "/nowhere",
    "DOCKER_BUILDKIT": "0",
    "UV_PYTHON": "3.6", "UV_NO_INDEX": "1", "UV_EXCLUDE_NEWER": "2020-01-01", "UV_CONSTRAINT": "/nowhere",
    "UV_TARGET": "/nowhere", "UV_PREFIX": "/nowhere", "UV_SYSTEM_PYTHON": "1", "UV_NO_BINARY": "1", "UV_RESOLUTION": "lowest",
    "VIRTUAL_ENV": "/nowhere", "CONDA_PREFIX": "/nowhere",
    "DBT_PROJECT_DIR": "/nowhere", "DBT_TARGET_PATH": "/nowhere", "DBT_LOG_PATH": "/nowhere", "DBT_LOG_FORMAT": "json",
    "DBT_LOG_LEVEL": "none", "DBT_WARN_ERROR": "true", "DBT_DEFER": "true", "DBT_STATE": "/nowhere", "DBT_EMPTY": "true",
    "DBT_SELECT": "none", "DBT_PORT": "1", "DBT_USER": "nobody", "DBT_ENV_SECRET_PASSWORD": "wrong", "DBT_PACKAGES_PATH": "/nowhere",
    "AIRFLOW_HOME": "/nowhere", "AIRFLOW_CONFIG": "/nowhere", "AIRFLOW__CORE__EXECUTOR": "none", "AIRFLOW__CORE__DAGS_FOLDER": "/nowhere",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere", "DAGSTER_HOME": "/nowhere", "DAGSTER_WEBSERVER_PORT": "1",
    "DAGSTER_DB_HOST": "nowhere.invalid", "PREFECT_HOME": "/nowhere", "PREFECT_API_URL": "http://nowhere.invalid",
    "PREFECT_PROFILE": "none",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite:////nowhere", "PREFECT_LOGGING_LEVEL": "none",
}  # fmt: skip


def slow_model(seconds: int, last: Sequence[str] = LAST) -> str:
    """A model that takes so long, and begins when all others are built: none of them is cut off with it, halfway into its place."""
    refs = " ".join(f"{{{{ ref('{name}') }}}}" for name in last)
    return f"{{{{ config(materialized='table') }}}}\n-- depends_on: {refs}\nselect pg_sleep({seconds})::text as slept\n"


def copy_checkout(root: Path, folder: Path) -> None:
    """Copy what git knows or would add into ``folder``, as a repository of its own."""
    copy_files(root, folder)
    for path in (root / "certs").glob("*.crt"):  # without which nothing can be built behind some firewalls
        shutil.copy(path, folder / "certs")
    for command in (["init", "--quiet"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def mostly_long(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test, of which all but the ``kept`` ones are of its long form."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.long) for value in values]


def unavailable(reason: str) -> None:
    """Skip the test, for want of something on this machine; under CI that must not happen, and the test fails."""
    pytest.fail(f"{reason}, and under CI nothing is skipped") if os.environ.get("CI") else pytest.skip(reason)


def command_line(process: psutil.Process) -> list[str]:
    """Program and arguments of a process; nothing for one that has ended, or is not shown."""
    with suppress(psutil.Error):  # macOS shows another account's to root alone
        return process.cmdline()
    return []


def files_below(folder: Path) -> list[Path]:
    """All files in a folder; what vanishes meanwhile is left out, as by no method of `Path` before Python 3.12."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until ``true()`` is; looks that are commands of their own leave some of the processor."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if true():
            return
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(min(0.5, max(0.05, time.monotonic() - began)))


def account_group(account: str) -> int:
    """The account's own group."""
    import pwd

    return pwd.getpwnam(account).pw_gid


class Arguments:
    """The command lines of every process on this machine, in containers too, that were seen while the block ran."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __enter__(self) -> Arguments:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.3):
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))

    def of(self, program: str) -> list[str]:
        """Those in which the program's name stands."""
        return [line for line in self.seen if program in line]


class Stack:
    """The commands of one checkout.

    Args:
        folder: the checkout.
        python: the interpreter that has Invoke.
        account: who types the commands, where it is not the tests' own account.
        env: variables that the commands see, besides free ports and this process's own; of those that are settings, the base images alone,
            and of those that PostgreSQL's programs read, none.
    """

    def __init__(self, folder: Path, python: str = sys.executable, account: str | None = None, **env: str) -> None:
        self.python = python
        self.as_account = {"user": account, "group": account_group(account), "extra_groups": []} if account else {}
        self.folder = folder
        self.dbt = folder / "dbt_project"
        self.ports = dict(zip(PORTS, ports.unused_ports(len(PORTS))))
        settings = {"COMPOSE_PROJECT_NAME", *dotenv_values(ROOT / ".env.example", interpolate=False)}
        outer = {
            key: value for key, value in os.environ.items() if (key not in settings or key.endswith("_IMAGE")) and not key.startswith("PG")
        }
        self.env = {**outer, **{key: str(port) for key, port in self.ports.items()}, "NO_COLOR": "1", **env}

    def invoke(self, *args: str, code: int | None = 0, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Type `invoke ARGS`, with ``env`` set in the shell; unless ``code`` is None, it must end with that exit code."""
        return self.run([self.python, "-m", "invoke", *args], code=code, stdin=stdin, **env)

    def run(self, argv: list[str], code: int | None = 0, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run any command in the checkout, in the same way; half an hour is a hang."""
        done = subprocess.run(
            argv, cwd=self.folder, env={**self.env, **env}, input=stdin, capture_output=True, text=True, timeout=1800, **self.as_account
        )
        shown = f"$ {' '.join(argv)}   -> {done.returncode}\n{done.stdout}{done.stderr}"
        print(shown)
        assert code is None or done.returncode == code, shown
        assert "Traceback" not in shown
        assert self.leaked(done.stdout + done.stderr) == []
        return done

    def kill_in_the_middle(self, *args: str, when: Callable[[], bool]) -> None:
        """Type `invoke ARGS`, and kill it with no chance to clean up as soon as ``when()`` holds."""
        command = subprocess.Popen(
            [self.python, "-m", "invoke", *args],
            cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.as_account,
        )  # fmt: skip
        try:
            wait_until(lambda: command.poll() is not None or when(), 120)
            assert command.poll() is None, "it was over too soon"
        finally:
            command.kill()
            command.wait()

    def status(self) -> dict:
        """`invoke status --json`, read."""
        return json.loads(self.invoke("status", "--json").stdout)

    def sql(self, query: str) -> str:
        """What `invoke sql` answers, without the frame."""
        return self.invoke("sql", f"copy ({query}) to stdout").stdout.strip()

    def remove(self) -> None:
        """Stop and delete everything of the stack, with a run that a test has left in progress; nothing of it may be left."""
        commands = (["down", "--force"], ["clean", "--volumes", "--images", "--no-backup", "--yes"])
        codes = [self.invoke(*args, code=None).returncode for args in commands]
        assert (codes, self.leftovers(), self.stored()) == ([0, 0], [], [])

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content hash of every mart."""
        out = self.invoke("psql", stdin=HASHES).stdout
        found = {name: (int(rows), digest) for name, rows, digest in re.findall(r"^ (\w+)\s*\|\s*(\d+) \| (\w{32})", out, re.M)}
        assert found.keys() == MARTS.keys(), out
        return found

    def secrets(self) -> dict[str, str]:
        """What `.env` holds."""
        return dotenv_values(self.folder / ".env")

    def passwords(self) -> dict[str, str]:
        """The secrets that were made for `.env`, by key; a test's own may be any word."""
        example, found = dotenv_values(self.folder / ".env.example"), self.secrets()
        return {key: found[key] for key, value in example.items() if value.startswith("<") and len(found.get(key) or "") >= 20}

    def leaked(self, text: str) -> list[str]:
        """The keys of those secrets that the text has."""
        return [key for key, secret in self.passwords().items() if secret in text]

    def git_status(self) -> str:
        """What git sees that is not committed."""
        return self.run(["git", "status", "--porcelain"]).stdout

    @contextmanager
    def edited(self, path: str, text: str | bytes) -> Iterator[None]:
        """A file of the dbt project with another content, or a new file, for a while."""
        file = self.dbt / path
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            yield
        finally:
            file.write_bytes(before) if before is not None else file.unlink()

    def on(self, name: str) -> None:
        """Make ``name`` the active orchestrator, however things stand."""
        if self.orchestrators() == {name}:  # as most often; it takes a tenth of what the command does
            return
        active = self.status()["orchestrator"]
        if active is None:
            self.invoke("up", "--orch", name)
        elif active != name:
            self.invoke("switch", name)


class Small:
    """What stacks that run the small project have of their own."""

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content of its table."""
        rows, content = self.sql("select count(*), string_agg(t::text, ' ' order by id) from last as t").split("\t")
        return {"last": (int(rows), content)}
