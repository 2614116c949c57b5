"""A separate checkout and the commands that a user types in it, for the tests of both runtimes."""

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
# One orchestrator, where one is enough; the long form has all three.
DAGSTER = ["dagster", *(pytest.param(name, marks=pytest.mark.long) for name in ("airflow", "prefect"))]
# The switches of the short form; the long form has all six.
SHORT = [("dagster", "airflow"), ("airflow", "prefect")]
PAIRS = list(itertools.pairwise(TOUR))

# A table's rows as text, in an order that does not depend on the server's locale: equal hashes mean equal content. The fingerprint of
# the loads is left out, because it differs after each load.
HASHES = """
select format(
    'select %L as mart, count(*), md5(string_agg(t, chr(10) order by t collate "C")) from '
    '(select (to_jsonb(m) - ''load_fingerprint'')::text as t from marts.%I m) r', tablename, tablename
)
from pg_tables where schemaname = 'marts' order by tablename \\gexec
"""

# Rows and content hash of every mart; they are the same for every orchestrator and runtime. After a change of the dbt
# project that is meant to change them, take the new ones from the failing assertion.
MARTS = {name: tuple(value) for name, value in json.loads((ROOT / "tests" / "marts.json").read_text(encoding="utf-8")).items()}


# The models that the shop builds last.
LAST = ("dim_customers", "dim_dates", "dim_product_prices", "fct_daily_payments", "rpt_customer_cohorts", "rpt_sales_summary")

# Variables that a user may have set, each with a value that would break a program that reads it.
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
    """A model that takes ``seconds`` and starts after all others: when it is killed, no other model is left half built."""
    refs = " ".join(f"{{{{ ref('{name}') }}}}" for name in last)
    return f"{{{{ config(materialized='table') }}}}\n-- depends_on: {refs}\nselect pg_sleep({seconds})::text as slept\n"


def ours(pattern: str = "*") -> list[str]:
    """The files of this repository, also those that are not added yet, as paths from its root."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, text=True, encoding="utf-8").stdout.splitlines()


def copy_checkout(root: Path, folder: Path) -> None:
    """Copy the files that git tracks or would add into ``folder``, as a separate repository."""
    copy_files(root, folder)
    for path in (root / "certs").glob("*.crt"):  # without which nothing can be built behind some firewalls
        shutil.copy(path, folder / "certs")
    for command in (["init", "--quiet"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def mostly_long(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test; all but the ``kept`` ones belong to its long form."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.long) for value in values]


def unavailable(reason: str) -> None:
    """Skip the test because this machine lacks something; under CI, fail it instead."""
    pytest.fail(f"{reason}, and under CI nothing is skipped") if os.environ.get("CI") else pytest.skip(reason)


def command_line(process: psutil.Process) -> list[str]:
    """Program and arguments of a process; empty if it has ended or may not be read."""
    with suppress(psutil.Error):  # macOS shows those of another account only to root
        return process.cmdline()
    return []


def files_below(folder: Path) -> list[Path]:
    """All files in a folder. Unlike the methods of `Path` before Python 3.12, this skips what vanishes meanwhile."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until ``true()`` holds. The longer a check takes, the longer the pause after it, so that a command leaves processor time."""
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
    """The command lines of all processes that were seen on this machine, also in containers, while the block ran."""

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
        """The command lines that contain the program's name."""
        return [line for line in self.seen if program in line]


class Stack:
    """The commands of one checkout.

    Args:
        folder: the checkout.
        python: the interpreter that has Invoke.
        account: the account that runs the commands; by default the tests' own.
        env: variables for the commands, in addition to free ports and this process's variables. Of the latter, settings other than the
            base images, and the variables of PostgreSQL's programs, are left out.
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
        """Run `invoke ARGS`, with ``env`` set in the shell; unless ``code`` is None, it has to end with that exit code."""
        return self.run([self.python, "-m", "invoke", *args], code=code, stdin=stdin, **env)

    def run(
        self, argv: list[str], code: int | None = 0, stdin: str = "", quiet: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the checkout, in the same way; after half an hour it counts as hung. ``quiet``: its output is not shown."""
        done = subprocess.run(
            argv, cwd=self.folder, env={**self.env, **env}, input=stdin, capture_output=True, text=True, timeout=1800, **self.as_account
        )
        shown = f"$ {' '.join(argv)}   -> {done.returncode}\n{done.stdout}{done.stderr}"
        if not quiet:
            print(shown)
        assert code is None or done.returncode == code, shown
        assert "Traceback" not in shown
        assert self.leaked(done.stdout + done.stderr) == []
        return done

    def logs(self) -> str:
        """The end of the services' logs, of whatever is up."""
        argv = [self.python, "-m", "invoke", "logs", "--tail", "50"]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60, **self.as_account)
            return done.stdout + done.stderr
        return "invoke logs did not end"

    def kill_in_the_middle(self, *args: str, when: Callable[[], bool]) -> None:
        """Run `invoke ARGS`, and kill it without a chance to clean up as soon as ``when()`` holds."""
        command = subprocess.Popen(
            [self.python, "-m", "invoke", *args],
            cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.as_account,
        )  # fmt: skip
        try:
            wait_until(lambda: command.poll() is not None or when(), 120)
            assert command.poll() is None, "it ended too soon"
        finally:
            command.kill()
            command.wait()

    def status(self) -> dict:
        """The parsed output of `invoke status --json`."""
        return json.loads(self.invoke("status", "--json").stdout)

    def sql(self, query: str) -> str:
        """The rows that `invoke sql` prints, without the frame."""
        return self.invoke("sql", f"copy ({query}) to stdout").stdout.strip()

    def remove(self) -> None:
        """Stop and delete the whole stack, even if a test has left a run in progress, and assert that nothing is left."""
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
        """The values in `.env`."""
        return dotenv_values(self.folder / ".env")

    def passwords(self) -> dict[str, str]:
        """The secrets that were generated for `.env`, by key; a shorter one was set by a test, and may be any word."""
        example, found = dotenv_values(self.folder / ".env.example"), self.secrets()
        return {key: found[key] for key, value in example.items() if value.startswith("<") and len(found.get(key) or "") >= 20}

    def leaked(self, text: str) -> list[str]:
        """The keys of the secrets that the text contains."""
        return [key for key, secret in self.passwords().items() if secret in text]

    def git_status(self) -> str:
        """The changes that git reports as not committed."""
        return self.run(["git", "status", "--porcelain"]).stdout

    @contextmanager
    def edited(self, path: str, text: str | bytes) -> Iterator[None]:
        """Change a file of the dbt project, or add one, for the time of the block."""
        file = self.dbt / path
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            yield
        finally:
            file.write_bytes(before) if before is not None else file.unlink()

    def on(self, name: str) -> None:
        """Make ``name`` the active orchestrator, from any state."""
        if self.orchestrators() == {name}:  # the usual case; this check takes a tenth of the command's time
            return
        active = self.status()["orchestrator"]
        if active is None:
            self.invoke("up", "--orch", name)
        elif active != name:
            self.invoke("switch", name)


class Small:
    """The parts of a stack that differ when it runs the small project."""

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Rows and content of its table."""
        rows, content = self.sql("select count(*), string_agg(t::text, ' ' order by id) from last as t").split("\t")
        return {"last": (int(rows), content)}
