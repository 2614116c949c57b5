"""What a scenario works with: one orchestrator on the stand, the project's graph, and what PostgreSQL saw of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bench.run import LOG_CONNECTIONS, Typed, bare, server_log, typed
from bench.stand import Stand
from stack import bootstrap
from stack.errors import StackError

# dbt writes the node before each of its statements, unless the project has a query-comment of its own.
LOG_STATEMENTS = f"{LOG_CONNECTIONS}alter role {bootstrap.DBT_ROLE} set log_min_duration_statement = 0;\n"
STATEMENT = re.compile(r'bench ([\d.]+) .*?(?:duration: ([\d.]+) ms  )?\bstatement:  ?/\* .*"node_id": "([^"]+)"', re.I)

# The manifest that a bare dbt command has left.
PRINT_GRAPH = """
import json, os
with open(os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'bench', 'manifest.json'), encoding='utf-8') as file:
    manifest = json.load(file)
keys = ('name', 'resource_type', 'original_file_path', 'package_name')
nodes = {id: {**{key: node[key] for key in keys}, 'materialized': node['config'].get('materialized')}
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

    def middle(self) -> Node:
        """The model to break: of those in SQL that have a model before them, the one that most others need.

        Raises:
            StackError: the project has no model that is a file of its own and builds something.
        """
        own = {
            id
            for id, node in self.nodes.items()
            if node["resource_type"] == "model"
            and node["package_name"] == self.project
            and node["materialized"] != "ephemeral"
            and node["original_file_path"].endswith(".sql")
        }
        after = {child for id in own for child in self.children.get(id, ())} & own
        ranked = sorted(after or own, key=lambda id: (-len(self.downstream(id)), id))
        if not ranked:
            raise StackError("The project has no SQL model of its own that could be broken.")
        node = self.nodes[ranked[0]]
        return Node(ranked[0], node["name"], node["original_file_path"])


@dataclass
class Subject:
    """The stand, and what is the same for every orchestrator.

    Attributes:
        stand: the stack.
        quick: whether little time is to be taken.
        graphs: the project's, once it is known.
    """

    stand: Stand
    quick: bool
    graphs: list[Graph] = field(default_factory=list)

    def graph(self, name: str) -> Graph:
        """The project's nodes, as dbt finds them where the orchestrator ``name`` runs it."""
        if not self.graphs:
            bare(self.stand, name, "parse")
            self.graphs.append(Graph(**json.loads(self.stand.execute(name, ["python", "-c", PRINT_GRAPH]))))
        return self.graphs[0]


@dataclass
class Trial:
    """One orchestrator in one round; it is up from the first scenario on.

    Attributes:
        subject: the stand, with what is the same for all.
        name: the orchestrator's.
        green: the nodes of its first run, which succeeded.
        down: why it is not up; empty where it is.
    """

    subject: Subject
    name: str
    green: frozenset[str] = frozenset()
    down: str = ""

    @property
    def stand(self) -> Stand:
        """The stack."""
        return self.subject.stand

    @property
    def quick(self) -> bool:
        """Whether little time is to be taken."""
        return self.subject.quick

    @cached_property
    def graph(self) -> Graph:
        """The project's nodes."""
        return self.subject.graph(self.name)

    def run(self, *args: str) -> Typed:
        """Type `invoke run`, however it ends."""
        return typed(self.stand, "run", *args)

    def spans(self, began: float, ended: float) -> dict[str, Span]:
        """What PostgreSQL did for each node between two moments, by the node's id, in the order of their begin.

        Raises:
            StackError: no statement names its node.
        """
        found = spans(server_log(self.stand), began, ended)
        if not found:
            raise StackError("PostgreSQL's log names no node: the project has a query-comment of its own.")
        return found

    @contextmanager
    def edited(self, path: str, more: str) -> Iterator[None]:
        """A file of the project with ``more`` at its end, for a while."""
        file = Path(self.stand.settings["SWITCHYARD_SOURCE_PATH"]) / path
        before = file.read_bytes()
        file.write_bytes(before + more.encode())
        try:
            yield
        finally:
            file.write_bytes(before)


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
