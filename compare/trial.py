"""What a scenario works with: one orchestrator on the rig, the project's graph, and what PostgreSQL saw of a run."""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from switchyard import bootstrap, pipeline
from switchyard import project as projects
from switchyard.errors import ApiUnusable, StackError
from switchyard.runtimes.docker import argv
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import POSTGRES

# dbt writes the node before each of its statements, unless the project has a query-comment of its own.
LOG_STATEMENTS = f"{LOG_CONNECTIONS}alter role {bootstrap.DBT_ROLE} set log_min_duration_statement = 0;\n"
STATEMENT = re.compile(r'bench ([\d.]+) .*?(?:duration: ([\d.]+) ms  )?\bstatement:  ?/\* .*"node_id": "([^"]+)"', re.I)

RUN_TIMEOUT_S = 3600  # seconds of a run, after which its command is killed; a project may take long
SLOW = "compare_slow"
SLEEPING = "pg_sleep(15)"
SLEPT = "compare_slept"  # its column
SLOW_MODEL = f"{{{{{{{{ config(materialized='table') }}}}}}}}\n{{before}}select {SLEEPING}::text as {SLEPT}\n"
# How many queries of dbt's are at work on the slow model, and on anything.
AT_WORK = (
    f"select count(*) filter (where query like '%{SLEEPING}%'), count(*) from pg_stat_activity"
    " where usename = 'dbt' and application_name <> 'psql' and state = 'active'"  # a profile may have an application_name
)
# What dbt has not put in place, or has not ended.
LEFT = """
select format('%s.%s', nspname, relname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where relkind in ('r', 'v', 'm') and relpersistence <> 't' and relname ~ '__dbt_(tmp|backup)'
union all select 'a query at work' from pg_stat_activity where usename = 'dbt' and application_name <> 'psql' and state = 'active'
"""
# A model's line that writes 192 MB to a tablespace, on a file system that has fewer.
ROOM = 64  # MB; in Docker, those of /tmp in PostgreSQL's container
FULL = "compare_full"
FILLING = (
    f"\n{{{{ config(pre_hook='create temporary table {FULL} tablespace {FULL} as"
    " select repeat(md5(n::text), 30) as filler from generate_series(1, 200000) as n') }}\n"
)

# The tables with a column, but dbt's temporary ones.
TABLES = """
select format('{what}', table_schema, table_name)
from information_schema.columns join information_schema.tables using (table_schema, table_name)
where column_name = '{column}' and table_type = 'BASE TABLE' and table_name not like '%\\_\\_dbt\\_%';
"""

# The manifest that a bare dbt command has left.
PRINT_GRAPH = """
import json, os
with open(os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'bench', 'manifest.json'), encoding='utf-8') as file:
    manifest = json.load(file)
keys = ('name', 'resource_type', 'original_file_path', 'package_name', 'access')
nodes = {id: {**{key: node.get(key) for key in keys}, 'materialized': node['config'].get('materialized')}
         for id, node in manifest['nodes'].items()}
print(json.dumps({'project': manifest['metadata']['project_name'], 'nodes': nodes, 'children': manifest['child_map'],
    'version': manifest['metadata']['dbt_version']}))
"""


@dataclass(frozen=True)
class Span:
    """When PostgreSQL worked for a node: epoch seconds of its first statement's start and its last one's end."""

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
        nodes: what is known of each, by id.
        children: the ids of those that need it, by id.
        version: of the dbt that has found them.
    """

    project: str
    version: str
    nodes: dict[str, dict[str, str]]
    children: dict[str, list[str]]

    def downstream(self, node: str) -> set[str]:
        """The ids of all that need ``node``, tests among them."""
        found: set[str] = set()
        waiting = [node]
        while waiting:
            new = {child for child in self.children.get(waiting.pop(), ()) if not child.startswith("exposure.")} - found
            found |= new
            waiting += new
        return found

    def tests(self, node: str) -> set[str]:
        """The ids of the tests that dbt takes with ``node``."""
        return {child for child in self.children.get(node, ()) if child.startswith(("test.", "unit_test."))}

    def before(self, node: str) -> set[str]:
        """The ids of the unit tests of ``node``, which dbt executes before it."""
        return {child for child in self.children.get(node, ()) if child.startswith("unit_test.")}

    def blocked(self, node: str) -> set[str]:
        """The ids of all that must not be executed when a test of ``node`` fails: what needs it, but its own tests."""
        models = [child for child in self.children.get(node, ()) if child not in self.tests(node) and not child.startswith("exposure.")]
        return {id for model in models for id in (model, *self.downstream(model))}

    def last(self, green: frozenset[str]) -> list[str]:
        """The names of the project's own seeds, snapshots and models that no other one needs: when these are built, all is.

        Args:
            green: the ids of the nodes that a run executes.
        """
        own = {
            id
            for id, node in self.nodes.items()
            if id in green
            and node["resource_type"] in ("seed", "snapshot", "model")
            and node["package_name"] == self.project
            and node["access"] != "private"  # which a model without a group may not refer to
        }
        return sorted({self.nodes[id]["name"] for id in own if not own.intersection(self.children.get(id, ()))})

    def middle(self, green: frozenset[str]) -> Node:
        """The model to break: the one in SQL that most others need, of those with a model before and after it where there are such.

        Args:
            green: the ids of the nodes that a run executes.

        Raises:
            StackError: the project has no such model that is a file of its own and builds something.
        """
        own = {
            id
            for id, node in self.nodes.items()
            if id in green
            and node["resource_type"] == "model"
            and node["package_name"] == self.project
            and node["materialized"] != "ephemeral"
            and node["original_file_path"].endswith(".sql")
            and node["access"] != "private"  # no test without its group may refer to it
            and id.split(".", 2)[2] == node["name"]  # it has no versions, to which other nodes may refer in its place
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
        folder: where pictures are written to.
        python: of the environment that takes them.
        before: dbt commands without which the project cannot be built.
        graphs: the project's, once it is known.
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
        subject: the rig, with what is the same for all.
        name: the orchestrator's.
        green: the nodes of its first run, which succeeded.
        down: why it is not up; empty where it is.
        ran: its last run that was measured, and the seconds of the bare build before it; None before that.
        whole: whether its newest run was one of the whole project, and green.
        left: by the title of a fault, what it has left in the warehouse.
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
        """Seconds in which a run must end that was disturbed: ten times the first one, and at least five minutes."""
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
        """Type `invoke run`, however it ends; a run that takes far longer than the first one is cancelled, so that others can begin."""
        limit = min(RUN_TIMEOUT_S, 2 * self.run_end_timeout) if self.first else RUN_TIMEOUT_S
        run = typed(self.rig, "run", *args, seconds=limit)
        if run.seconds >= limit:
            with contextlib.suppress(StackError):
                self.rig.invoke("run", "--cancel")
        self.whole = not args and not run.code
        return run

    def spans(self, began: float, ended: float) -> dict[str, Span]:
        """What PostgreSQL did for each node between two moments, by the node's id, in the order of their begin."""
        return spans(server_log(self.rig), began, ended)

    def require_nodes(self) -> None:
        """Make sure that nodes can be seen.

        Raises:
            StackError: no statement named its node in the first run.
        """
        if not self.green:
            raise StackError("PostgreSQL's log names no node: the first run executed none, or a macro replaces dbt's query comment.")

    @property
    def project(self) -> Path:
        """The folder of the project's copy."""
        return Path(self.rig.settings["SWITCHYARD_SOURCE_PATH"])

    @contextmanager
    def replaced(self, path: str | Path, content: bytes) -> Iterator[None]:
        """A file of the project, which there need not be, with another content, for a while."""
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
        """A file of the project with ``more`` at its end, for a while."""
        return self.replaced(path, (self.project / path).read_bytes() + more.encode())

    def folder(self, kind: str) -> Path:
        """The first folder of a ``kind`` (models, tests) of the project."""
        content = yaml.safe_load((self.project / projects.FILE).read_text(encoding="utf-8"))
        return Path(self.project, (content.get(f"{kind.removesuffix('s')}-paths") or [kind])[0])

    def added(self, kind: str, name: str, text: str) -> AbstractContextManager[None]:
        """A further file in the `folder` of a ``kind``, for a while."""
        folder = self.folder(kind)
        folder.mkdir(parents=True, exist_ok=True)
        return self.replaced(folder / name, text.encode())

    @contextmanager
    def started(self, reached: Callable[[], bool], *args: str) -> Iterator[Future[Typed]]:
        """`invoke run` with these arguments at the moment at which ``reached()`` is; it is cancelled at the end, where it has not ended.

        Raises:
            StackError: it ended before.
        """
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(self.run, *args)
            try:
                while not reached():
                    if run.done():
                        raise StackError("The run that was to be disturbed ended before.", run.result().text[-500:])
                    time.sleep(0.5)
                yield run
            finally:
                if not run.done():
                    with contextlib.suppress(StackError):  # what was to be seen is known
                        self.rig.invoke("run", "--cancel")

    @contextmanager
    def under_way(self) -> Iterator[Future[Typed]]:
        """As `started`: a run of which one model is left, at which PostgreSQL works just now."""
        self.require_nodes()
        looks: deque[bool] = deque(maxlen=3)  # in a row: between two nodes, too, there is a moment at which nothing else is at work

        def reached() -> bool:
            looks.append(self.rig.superuser(AT_WORK).strip() == "1|1")
            return sum(looks) == looks.maxlen

        self.drop(SLEPT)  # that of the fault before
        # It needs all that nothing else needs, and so comes after everything, and after all tests.
        before = "".join(f"-- depends_on: {{{{ ref('{name}') }}}}\n" for name in self.graph.last(self.green))
        with self.added("models", f"{SLOW}.sql", SLOW_MODEL.format(before=before)), self.started(reached) as run:
            yield run

    def warehouse(self, script: str) -> str:
        """What psql answers to a script of the superuser's in the project's database; dbt's own role would be seen in the log."""
        return self.rig.superuser(script, projects.database(self.rig.settings))

    def tables(self, column: str) -> list[str]:
        """The names of the tables that have a column of this name, wherever the project puts its tables."""
        return self.warehouse(TABLES.format(what="%I.%I", column=column)).splitlines()

    def drop(self, column: str) -> None:
        """Drop all tables that have a column of this name."""
        self.warehouse(TABLES.format(what="drop table if exists %I.%I cascade", column=column).replace(";", " \\gexec"))

    def idle_at(self, deadline: float) -> float | None:
        """When the orchestrator has no run in progress, in epoch seconds; None where it has one still at the ``deadline``."""
        while True:
            with contextlib.suppress(ApiUnusable):  # it may be on its way up
                if not pipeline.active_runs(self.rig.driver):
                    return time.time()
            if time.time() > deadline:
                return None
            time.sleep(0.5)

    def at_rest(self, deadline: float) -> float | None:
        """Since when dbt has no query at work, in epoch seconds; None where it has one still at the ``deadline``."""
        quiet: list[float] = []
        while len(quiet) < 3:  # looks in a row: between two nodes, too, there is a moment without
            quiet = [*quiet, time.time()] if self.rig.superuser(AT_WORK).strip().endswith("|0") else []
            if not quiet and time.time() > deadline:
                return None
            time.sleep(0.5)
        return quiet[0]

    def kill(self, service: str) -> None:
        """End a service of the orchestrator's, with all processes that it started, with no chance to tidy up."""
        driver = self.rig.driver
        if isinstance(driver, Native):
            record = next(record for record in driver.processes.records() if record.service == service)
            for process in driver.processes.members(record):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return
        container = next(one.container for one in driver.services() if one.name == service)
        # Not by `docker kill`, after which the engine would not start it again. The container ends with its only service.
        driver.runner.ask(["docker", "exec", container, "sh", "-c", "kill -9 -1"])

    def kill_dbt(self) -> None:
        """As `kill_all`, the service that runs dbt."""
        self.kill_all([self.rig.orchestrators[self.name].dbt])

    def kill_all(self, services: Iterable[str]) -> None:
        """Kill services, and natively, where nothing else does, start these again; the others stay as they are."""
        for service in services:
            self.kill(service)
        if isinstance(self.rig.driver, Native):
            self.rig.invoke("up", "--orch", self.name)

    def outcome(self, run: Future[Typed]) -> Typed | None:
        """The run's command when it has ended; None where it has not after `run_end_timeout`.

        Meanwhile, natively, a service that has ended is started again, as Docker does.
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
        """Stop PostgreSQL, as its administrator would, and start it."""
        driver = self.rig.driver
        if isinstance(driver, Native):
            driver.postgres.stop()
        else:
            container = next(one.container for one in driver.services() if one.name == POSTGRES)
            self.rig.command(["docker", "restart", container])
        driver.start_postgres(300, lambda _: None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All services, PostgreSQL and the commands that were typed stand still."""
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
        """Have PostgreSQL expect another password of dbt; no log gets to know it."""
        quiet = "set log_statement = none; set log_min_error_statement = panic;"
        self.rig.superuser(f"{quiet} alter role {bootstrap.DBT_ROLE} password {bootstrap.literal(password)};\n")

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """A tablespace that has too little room for `FILLING`.

        Raises:
            StackError: there can be none here.
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
        """Note what a fault has left in the warehouse; what was there after another one is that one's."""
        known = {one for left in self.left.values() for one in left if "." in one}
        found = self.rig.superuser(LEFT, projects.database(self.rig.settings)).splitlines()
        self.left[fault] = [one for one in found if one and one not in known]


@contextmanager
def afterwards(tidy: Callable[[], object]) -> Iterator[None]:
    """Tidy up after what is done, also after an error, but not after Ctrl-C: the rig is removed then, and nobody waits for a run more."""
    try:
        yield
    except Exception:
        tidy()
        raise
    tidy()


@contextmanager
def paused(containers: Iterable[str]) -> Iterator[None]:
    """Containers stand still. The engine gives up where a container starts processes without a pause, so each is asked several times.

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
    """A folder that has `ROOM`, for the account that PostgreSQL runs under.

    Raises:
        StackError: it cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix=f"{FULL}-") as folder:
        account = native.postgres.account  # none, unless root starts it
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}m,mode=0700", "none", folder]
        if sys.platform != "linux" or account is None or native.runner.ask(mount).code:
            raise StackError("A file system that is small enough can be mounted only by root on Linux.")
        try:
            shutil.chown(folder, account)
            yield folder
        finally:
            native.runner.ask(["umount", "-l", folder])


def spans(log: list[str], began: float, ended: float) -> dict[str, Span]:
    """As `Trial.spans`, from the lines of the log; an empty mapping where none names a node."""
    found: dict[str, Span] = {}
    for line in log:
        if match := STATEMENT.search(line):
            end, node = float(match[1]), match[3]
            start = end - float(match[2] or 0) / 1000  # of one that failed, the log has no duration
            if began <= start and end <= ended and not node.startswith("operation."):
                known = found.get(node, Span(start, end))
                found[node] = Span(min(known.began, start), max(known.ended, end))
    return dict(sorted(found.items(), key=lambda item: item[1].began))
