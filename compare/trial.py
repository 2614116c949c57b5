"""What a scenario works with: one orchestrator on the rig, the project's graph, and PostgreSQL's record of a run."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from bench import memory
from bench.rig import Rig
from bench.run import LOG_CONNECTIONS, Timeline, Typed, bare, server_log, typed
from rundbt.api import ApiError
from switchyard import bootstrap, pipeline
from switchyard import project as projects
from switchyard.errors import ApiUnusable, StackError
from switchyard.runtimes.docker import argv
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import POSTGRES

# dbt writes the node before each of its statements, unless the project has its own query-comment.
LOG_STATEMENTS = f"{LOG_CONNECTIONS}alter role {bootstrap.DBT_ROLE} set log_min_duration_statement = 0;\n"
STATEMENT = re.compile(r'bench ([\d.]+) .*?(?:duration: ([\d.]+) ms  )?\bstatement:  ?/\* .*"node_id": "([^"]+)"', re.I)

RUN_TIMEOUT_S = 3600  # seconds of a run, after which its command is killed; a project may take long
SLOW = "compare_slow"
SLEEPING = "pg_sleep(15)"
SLEPT = "compare_slept"  # its column
SLOW_MODEL = f"{{{{{{{{ config(materialized='table') }}}}}}}}\n{{before}}select {SLEEPING}::text as {SLEPT}\n"
# How many dbt queries are active for the slow model, and in total.
AT_WORK = (
    f"select count(*) filter (where query like '%{SLEEPING}%'), count(*) from pg_stat_activity"
    " where usename = 'dbt' and application_name not like 'psql%' and state = 'active'"  # a profile may have an application_name
)
# Tables that dbt has not put in place, and queries that it has not ended.
LEFT = """
select format('%s.%s', nspname, relname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where relkind in ('r', 'v', 'm') and relpersistence <> 't' and relname ~ '__dbt_(tmp|backup)'
union all select 'a query at work' from pg_stat_activity where usename = 'dbt' and application_name not like 'psql%' and state = 'active'
"""
# A line for a model that writes 192 MB to a tablespace, on a file system with less space.
ROOM = 64  # MB; in Docker, the size of /tmp in PostgreSQL's container
FULL = "compare_full"
FILLING = (
    f"\n{{{{ config(pre_hook='create temporary table {FULL} tablespace {FULL} as"
    " select repeat(md5(n::text), 30) as filler from generate_series(1, 200000) as n') }}\n"
)

# The tables with a column, without dbt's temporary ones.
TABLES = """
select format('{what}', table_schema, table_name)
from information_schema.columns join information_schema.tables using (table_schema, table_name)
where column_name = '{column}' and table_type = 'BASE TABLE' and table_name not like '%\\_\\_dbt\\_%';
"""

# The manifest of the last bare dbt command.
PRINT_GRAPH = """
import json, os
with open(os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'bench', 'manifest.json'), encoding='utf-8') as file:
    manifest = json.load(file)
keys = ('name', 'resource_type', 'original_file_path', 'package_name', 'access')
nodes = {id: {**{key: node.get(key) for key in keys}, 'materialized': node['config'].get('materialized')}
         for kind in ('nodes', 'unit_tests') for id, node in manifest[kind].items()}
print(json.dumps({'project': manifest['metadata']['project_name'], 'nodes': nodes, 'children': manifest['child_map'],
    'version': manifest['metadata']['dbt_version']}))
"""


@dataclass(frozen=True)
class Span:
    """When PostgreSQL executed a node: epoch seconds of the start of its first statement and the end of its last one."""

    began: float
    ended: float


class Node(NamedTuple):
    """A node of the project: dbt's id, its name and its file in the project."""

    id: str
    name: str
    path: str


@dataclass(frozen=True)
class Graph:
    """The project's nodes.

    Attributes:
        project: its name.
        nodes: the properties of each node, by id.
        children: the ids of the nodes that need a node, by its id.
        version: the version of the dbt that found them.
    """

    project: str
    version: str
    nodes: dict[str, dict[str, str]]
    children: dict[str, list[str]]

    def downstream(self, node: str) -> set[str]:
        """The ids of all nodes that need ``node``, including tests."""
        found: set[str] = set()
        waiting = [node]
        while waiting:
            new = {child for child in self.children.get(waiting.pop(), ()) if not child.startswith("exposure.")} - found
            found |= new
            waiting += new
        return found

    def tests(self, node: str) -> set[str]:
        """The ids of the tests that dbt selects with ``node``."""
        return {child for child in self.children.get(node, ()) if child.startswith(("test.", "unit_test."))}

    def before(self, node: str) -> set[str]:
        """The ids of the unit tests of ``node``, which dbt executes before it."""
        return {child for child in self.children.get(node, ()) if child.startswith("unit_test.")}

    def blocked(self, node: str) -> set[str]:
        """The ids of all nodes that must not be executed when a test of ``node`` fails: those that need it, except its own tests."""
        models = [child for child in self.children.get(node, ()) if child not in self.tests(node) and not child.startswith("exposure.")]
        return {id for model in models for id in (model, *self.downstream(model))}

    def last(self, green: frozenset[str]) -> list[str]:
        """The names of the project's own seeds, snapshots and models that no other one needs: when these are built, everything is.

        Args:
            green: the ids of the nodes that a run executes.
        """
        own = {
            id
            for id, node in self.nodes.items()
            if id in green
            and node["resource_type"] in ("seed", "snapshot", "model")
            and node["package_name"] == self.project
            and node["access"] != "private"  # a model without a group may not refer to it
        }
        return sorted({self.nodes[id]["name"] for id in own if not own.intersection(self.children.get(id, ()))})

    def middle(self, green: frozenset[str]) -> Node:
        """The model to break: the SQL model that most others need, among those with a model before and after it if there are any.

        Args:
            green: the ids of the nodes that a run executes.

        Raises:
            StackError: the project has no such model in a file of its own that builds something.
        """
        own = {
            id
            for id, node in self.nodes.items()
            if id in green
            and node["resource_type"] == "model"
            and node["package_name"] == self.project
            and node["materialized"] != "ephemeral"
            and node["original_file_path"].endswith(".sql")
            and node["access"] != "private"  # a test outside of its group may not refer to it
            and id.split(".", 2)[2] == node["name"]  # it has no versions, to which other nodes could refer instead
        }
        after = {child for id in own for child in self.children.get(id, ())} & own
        before = {id for id in own if own.intersection(self.children.get(id, ()))}
        ranked = sorted(after & before or before or own, key=lambda id: (-len(self.downstream(id)), id))
        if not ranked:
            raise StackError("The project has no SQL model of its own that could be broken.")
        node = self.nodes[ranked[0]]
        return Node(ranked[0], node["name"], node["original_file_path"])


@dataclass
class Subject:
    """The rig, and what is the same for every orchestrator.

    Attributes:
        rig: the stack.
        folder: the folder for pictures.
        python: the Python of the environment that takes them.
        before: dbt commands that have to run before the project can be built.
        graphs: the project's graph, once it is known.
    """

    rig: Rig
    folder: Path
    python: Path
    before: Sequence[Sequence[str]] = ()
    graphs: list[Graph] = field(default_factory=list)

    def graph(self, name: str) -> Graph:
        """The project's nodes, as dbt finds them where the orchestrator ``name`` runs it."""
        if not self.graphs:
            bare(self.rig, name, "parse")
            self.graphs.append(Graph(**json.loads(self.rig.execute(name, ["python", "-c", PRINT_GRAPH]))))
        return self.graphs[0]


@dataclass
class Trial:
    """One orchestrator in one round; it is up from the first scenario on.

    Attributes:
        subject: the rig, with everything that is the same for all orchestrators.
        name: the orchestrator's name.
        green: the nodes of its first run, which succeeded.
        down: why it is not up; empty if it is.
        ran: its last measured run, and the seconds of the bare build before it; None before that.
        whole: whether its newest run was of the whole project, and green.
        left: what each fault has left in the warehouse, by the fault's title.
        first: the seconds of its first run; 0 before that.
    """

    subject: Subject
    name: str
    green: frozenset[str] = frozenset()
    down: str = ""
    ran: tuple[Timeline, float] | None = None
    whole: bool = False
    left: dict[str, list[str]] = field(default_factory=dict)
    first: float = 0.0

    @property
    def run_end_timeout(self) -> float:
        """Seconds in which a disturbed run has to end: ten times the first one, and at least five minutes."""
        return max(300, 10 * self.first)

    @property
    def rig(self) -> Rig:
        """The stack."""
        return self.subject.rig

    @cached_property
    def graph(self) -> Graph:
        """The project's nodes."""
        return self.subject.graph(self.name)

    def run(self, *args: str) -> Typed:
        """Type `invoke run`; it may fail. A run that takes far longer than the first one is cancelled, so that others can start."""
        limit = min(RUN_TIMEOUT_S, 2 * self.run_end_timeout) if self.first else RUN_TIMEOUT_S
        run = typed(self.rig, "run", *args, seconds=limit)
        if run.seconds >= limit:
            with contextlib.suppress(StackError):
                self.rig.invoke("run", "--cancel")
        self.whole = not args and not run.code
        return run

    def spans(self, began: float, ended: float) -> dict[str, Span]:
        """When PostgreSQL executed each node between two moments, by the node's id, in the order of their start."""
        return spans(server_log(self.rig), began, ended)

    def require_nodes(self) -> None:
        """Make sure that PostgreSQL's log has nodes.

        Raises:
            StackError: no statement of the first run had its node.
        """
        if not self.green:
            raise StackError("PostgreSQL's log has no nodes: the first run executed none, or a macro replaces dbt's query comment.")

    @property
    def project(self) -> Path:
        """The folder of the project's copy."""
        return Path(self.rig.settings["SWITCHYARD_SOURCE_PATH"])

    @contextmanager
    def replaced(self, path: str | Path, content: bytes) -> Iterator[None]:
        """Temporarily give a file of the project another content; the file does not have to exist."""
        file = self.project / path
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(content)
        try:
            yield
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_bytes(before)

    def edited(self, path: str, more: str) -> AbstractContextManager[None]:
        """Temporarily append ``more`` to a file of the project."""
        return self.replaced(path, (self.project / path).read_bytes() + more.encode())

    def folder(self, kind: str) -> Path:
        """The first folder of a ``kind`` (models, tests) of the project."""
        content = yaml.safe_load((self.project / projects.FILE).read_text(encoding="utf-8"))
        return Path(self.project, (content.get(f"{kind.removesuffix('s')}-paths") or [kind])[0])

    def added(self, kind: str, name: str, text: str) -> AbstractContextManager[None]:
        """Temporarily add a file to the `folder` of a ``kind``."""
        folder = self.folder(kind)
        folder.mkdir(parents=True, exist_ok=True)
        return self.replaced(folder / name, text.encode())

    @contextmanager
    def started(self, reached: Callable[[], bool], *args: str) -> Iterator[Future[Typed]]:
        """`invoke run` with these arguments, at the moment when ``reached()`` becomes true; cancelled at the end if it is still running.

        Raises:
            StackError: it ended before that moment.
        """
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(self.run, *args)
            try:
                while not reached():
                    if run.done():
                        raise StackError("The run ended before it could be disturbed.", run.result().text[-500:])
                    time.sleep(0.5)
                yield run
            finally:
                if not run.done():
                    with contextlib.suppress(StackError):  # the outcome is known already
                        self.rig.invoke("run", "--cancel")

    @contextmanager
    def under_way(self) -> Iterator[Future[Typed]]:
        """As `started`: a run at the moment when PostgreSQL works on its last model."""
        self.require_nodes()
        looks: deque[bool] = deque(maxlen=3)  # several in a row: between two nodes, no other query is active for a moment, either

        def reached() -> bool:
            looks.append(self.rig.superuser(AT_WORK).strip() == "1|1")
            return sum(looks) == looks.maxlen

        self.drop(SLEPT)  # the table from the fault before
        # It depends on all nodes that no other needs, and so runs after everything else, including all tests.
        before = "".join(f"-- depends_on: {{{{ ref('{name}') }}}}\n" for name in self.graph.last(self.green))
        with self.added("models", f"{SLOW}.sql", SLOW_MODEL.format(before=before)), self.started(reached) as run:
            yield run

    def warehouse(self, script: str) -> str:
        """The output of psql for a script in the project's database, as the superuser: the role dbt would appear in the log."""
        return self.rig.superuser(script, projects.database(self.rig.settings))

    def tables(self, column: str) -> list[str]:
        """The names of the tables with a column of this name, in any schema."""
        return self.warehouse(TABLES.format(what="%I.%I", column=column)).splitlines()

    def drop(self, column: str) -> None:
        """Drop all tables with a column of this name."""
        self.warehouse(TABLES.format(what="drop table if exists %I.%I cascade", column=column).replace(";", " \\gexec"))

    def idle_at(self, deadline: float) -> float | None:
        """When the orchestrator has no run in progress, in epoch seconds; None if it still has one at the ``deadline``."""
        while True:
            with contextlib.suppress(ApiUnusable):  # it may be starting
                if not pipeline.active_runs(self.rig.driver):
                    return time.time()
            if time.time() > deadline:
                return None
            time.sleep(0.5)

    def at_rest(self, deadline: float) -> float | None:
        """Since when dbt has no active query, in epoch seconds; None if it still has one at the ``deadline``."""
        quiet: list[float] = []
        while len(quiet) < 3:  # several in a row: between two nodes, no query is active for a moment, either
            quiet = [*quiet, time.time()] if self.rig.superuser(AT_WORK).strip().endswith("|0") else []
            if not quiet and time.time() > deadline:
                return None
            time.sleep(0.5)
        return quiet[0]

    def kill(self, service: str) -> None:
        """Kill a service of the orchestrator with all processes that it started, without a chance to clean up."""
        driver = self.rig.driver
        if isinstance(driver, Native):
            record = next(record for record in driver.processes.records() if record.service == service)
            for process in driver.processes.members(record):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return
        container = next(one.container for one in driver.services() if one.name == service)
        # Not with `docker kill`, after which the engine would not restart it. The container ends with its only service.
        driver.runner.ask(["docker", "exec", container, "sh", "-c", "kill -9 -1"])

    def kill_dbt(self) -> None:
        """Kill the service that runs dbt, as `kill_all`."""
        self.kill_all([self.rig.orchestrators[self.name].dbt])

    def kill_all(self, services: Iterable[str]) -> None:
        """Kill services, and natively, where nothing else does, start them again; the other services are not changed."""
        for service in services:
            self.kill(service)
        if isinstance(self.rig.driver, Native):
            self.rig.invoke("up", "--orch", self.name)

    def outcome(self, run: Future[Typed]) -> Typed | None:
        """The run's command once it has ended; None if it has not after `run_end_timeout`.

        Meanwhile, natively, services that have ended are started again, as by Docker.
        """
        driver = self.rig.driver
        deadline = time.monotonic() + self.run_end_timeout
        while time.monotonic() < deadline:
            if wait([run], timeout=1).done:
                return run.result()
            if isinstance(driver, Native) and not all(map(driver.processes.root, driver.processes.records())):
                self.rig.invoke("up", "--orch", self.name)
        return None

    def restart_postgres(self) -> None:
        """Stop PostgreSQL as an administrator would, and start it."""
        driver = self.rig.driver
        if isinstance(driver, Native):
            driver.postgres.stop()
        else:
            container = next(one.container for one in driver.services() if one.name == POSTGRES)
            self.rig.command(["docker", "restart", container])
        driver.start_postgres(300, lambda _: None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze all services, PostgreSQL and the commands that were typed."""
        driver = self.rig.driver
        processes = {process.pid: process for process in psutil.Process().children(recursive=True)}
        containers = []
        if isinstance(driver, Native):
            processes |= {process.pid: process for found in memory.processes(driver).values() for process in found}
        else:
            containers = [service.container for service in driver.services() if service.up]
        with paused(containers):
            try:
                for process in processes.values():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.suspend()
                yield
            finally:
                for process in processes.values():
                    with contextlib.suppress(psutil.Error):
                        process.resume()

    def set_password(self, password: str) -> None:
        """Change the password of dbt's role in PostgreSQL, without writing it to a log."""
        quiet = "set log_statement = none; set log_min_error_statement = panic;"
        self.rig.superuser(f"{quiet} alter role {bootstrap.DBT_ROLE} password {bootstrap.literal(password)};\n")

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """A tablespace with too little space for `FILLING`.

        Raises:
            StackError: it cannot be created here.
        """
        driver = self.rig.driver
        with contextlib.ExitStack() as undo:
            if isinstance(driver, Native):
                place = undo.enter_context(small_file_system(driver))
            else:
                place = f"/tmp/{FULL}"
                inside = partial(argv.on_server, self.rig.settings)
                self.rig.command(inside(["mkdir", place]))
                undo.callback(self.rig.command, inside(["rm", "-r", place]))
            made = f"create tablespace {FULL} location {bootstrap.literal(place)};"
            self.rig.superuser(f"{made}\ngrant create on tablespace {FULL} to {bootstrap.DBT_ROLE};\n")
            undo.callback(self.rig.superuser, f"drop tablespace {FULL};\n")
            yield

    def note_left(self, fault: str) -> None:
        """Record what a fault has left in the warehouse, without what an earlier fault left."""
        known = {one for left in self.left.values() for one in left if "." in one}
        found = self.rig.superuser(LEFT, projects.database(self.rig.settings)).splitlines()
        self.left[fault] = [one for one in found if one and one not in known]


def reason(error: Exception) -> str:
    """The text of a cell without a figure."""
    if isinstance(error, ApiError):
        return f"The product's API failed: {error}"
    if not isinstance(error, StackError):
        return f"This is an error in the comparison itself: {type(error).__name__}: {error}"
    errors = [line.removeprefix("Error: ") for line in error.why.splitlines() if line.startswith("Error: ")]  # from a typed command
    return " ".join([error.what, *errors[:1]])


@contextmanager
def afterwards(tidy: Callable[[], object]) -> Iterator[None]:
    """Clean up after the block, also after an error, but not after Ctrl-C: then the whole rig is removed, and nobody waits longer."""
    try:
        yield
    except Exception:
        tidy()
        raise
    tidy()


@contextmanager
def paused(containers: Iterable[str]) -> Iterator[None]:
    """Pause containers. The engine fails if a container keeps starting processes, so several attempts are made for each.

    Raises:
        StackError: one could not be paused.
    """
    done = []
    try:
        for name in containers:
            done.append(name)
            for left in reversed(range(10)):
                paused = subprocess.run(["docker", "pause", name], capture_output=True, text=True, encoding="utf-8")
                if not paused.returncode:
                    break
                if not left:
                    raise StackError(f"The container {name} could not be paused.", paused.stderr.strip())
        yield
    finally:
        for name in done:
            subprocess.run(["docker", "unpause", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def small_file_system(native: Native) -> Iterator[str]:
    """A folder with only `ROOM` of space, for the account that PostgreSQL runs under.

    Raises:
        StackError: it cannot be created.
    """
    with tempfile.TemporaryDirectory(prefix=f"{FULL}-") as folder:
        account = native.postgres.account  # None, unless root starts it
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}m,mode=0700", "none", folder]
        if sys.platform != "linux" or account is None or native.runner.ask(mount).code:
            raise StackError("Only root on Linux can mount a small enough file system.")
        try:
            shutil.chown(folder, account)
            yield folder
        finally:
            native.runner.ask(["umount", "-l", folder])


def known(spans: Mapping[str, Span], *nodes: str) -> list[Span]:
    """The spans of some nodes, without those that PostgreSQL did not execute.

    Raises:
        StackError: it executed none of them.
    """
    found = [spans[node] for node in nodes if node in spans]
    if not found:
        raise StackError(f"PostgreSQL's log of the run has no statement of {nodes[0]}.")
    return found


def spans(log: list[str], began: float, ended: float) -> dict[str, Span]:
    """As `Trial.spans`, from the lines of the log; empty if no line has a node."""
    found: dict[str, Span] = {}
    for line in log:
        if match := STATEMENT.search(line):
            end, node = float(match[1]), match[3]
            start = end - float(match[2] or 0) / 1000  # a failed statement has no duration in the log
            if began <= start and end <= ended and not node.startswith("operation."):
                known = found.get(node, Span(start, end))
                found[node] = Span(min(known.began, start), max(known.ended, end))
    return dict(sorted(found.items(), key=lambda item: item[1].began))
