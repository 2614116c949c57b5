"""No code in docker/ and rundbt/ uses a product's private names, changes a product's code, or writes to its database.

Modules of a product are followed through imports and plain assignments; what a function returns is not followed.
"""

from __future__ import annotations

import ast

import pytest

from rundbt.project_files import DROP_IN

from ..stacks import ROOT

PRODUCTS = ("airflow", "cosmos", "dagster", "prefect", "dbt", "multiprocessing")
EXCEPTION = ROOT / "rundbt" / "dbt_internals.py"  # checks what it uses against the dbt that is installed
DATABASES = ("sqlalchemy", "psycopg", "psycopg2", "asyncpg")
SESSIONS = ("create_session", "provide_session", "NEW_SESSION")  # Airflow's, to its metadata database
WRITES = ("alter ", "comment on", "create ", "delete ", "drop ", "insert ", "truncate ", "update ")


def is_product(module: str) -> bool:
    """Whether the module belongs to an orchestrator, to dbt, or to an integration of the two."""
    name = module.partition(".")[0]
    return name in PRODUCTS or name.startswith(tuple(f"{product}_" for product in PRODUCTS))


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not (part.startswith("__") and part.endswith("__")) for part in name.split("."))


class Walker(ast.NodeVisitor):
    """Collects what a file may not do, as ``(line, what)``."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self.products: dict[str, str] = {}  # the file's names for a product's objects, and their full names
        self.database = False

    def add(self, node: ast.AST, what: str) -> None:
        self.found.append((node.lineno, what))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported(node, alias.name, alias.name)
            if is_product(alias.name):
                self.products[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.imported(node, node.module or "", f"{node.module}.{alias.name}")
            if not node.level and is_product(node.module or ""):
                self.products[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def imported(self, node: ast.AST, module: str, name: str) -> None:
        self.database |= module.partition(".")[0] in DATABASES
        if is_product(module) and (is_private(name) or name.rpartition(".")[2] in SESSIONS):
            self.add(node, name)

    def product(self, node: ast.AST) -> str | None:
        """The full name of the product's object that the expression refers to, if it does."""
        if isinstance(node, ast.Name):
            return self.products.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := self.product(node.value)):
            return f"{owner}.{node.attr}"
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self.product(node)
        if name and is_private(node.attr):
            self.add(node, name)
        elif isinstance(node.ctx, ast.Store | ast.Del) and name:
            self.add(node, f"assigns {name}")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.products.pop(target.id, None)
                if name := self.product(node.value):
                    self.products[target.id] = name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A private method of a product's base class is private, too."""
        bases = [name for base in node.bases if (name := self.product(base))]
        for part in ast.walk(node) if bases else ():
            called = isinstance(part, ast.Attribute) and isinstance(part.value, ast.Call) and getattr(part.value.func, "id", "") == "super"
            if called and is_private(part.attr):
                self.add(part, f"{bases[0]}.{part.attr}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        arguments = [*node.args, None, None]
        constant = arguments[1].value if isinstance(arguments[1], ast.Constant) else ""
        if name in ("setattr", "delattr") and (owner := self.product(arguments[0])):
            self.add(node, f"assigns {owner}.{constant}")
        if name == "getattr" and is_private(str(constant)) and (owner := self.product(arguments[0])):
            self.add(node, f"{owner}.{constant}")
        module = arguments[0].value if isinstance(arguments[0], ast.Constant) else ""
        if name == "import_module" and is_product(str(module)) and is_private(str(module)):
            self.add(node, str(module))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """SQL is checked only in a file that imports a database driver; Switchyard's own schema is allowed."""
        sql = node.value.lstrip().lower() if isinstance(node.value, str) else ""
        if self.database and sql.startswith(WRITES) and "schema switchyard" not in sql:
            self.add(node, f"writes: {node.value.strip()[:40]}")


def private_names(source: str) -> list[tuple[int, str]]:
    """The lines of a Python file that break these rules, and what they use."""
    walker = Walker()
    walker.visit(ast.parse(source))
    return sorted(set(walker.found))


def test_the_code_in_the_images_uses_no_private_names() -> None:
    files = [path for folder in ("docker", "rundbt") for path in sorted((ROOT / folder).rglob("*.py")) if path != EXCEPTION]
    assert files
    files.append(DROP_IN)
    found = [f"{path.relative_to(ROOT)}:{line} {what}" for path in files for line, what in private_names(path.read_text(encoding="utf-8"))]
    assert found == [], "\n" + "\n".join(found)


def test_the_exception_is_needed() -> None:
    assert private_names(EXCEPTION.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from dagster._core.run import x", ["dagster._core.run.x"]),
        ("from dagster_dbt.core import _x as y", ["dagster_dbt.core._x"]),
        ("import prefect._internal", ["prefect._internal"]),
        ("import airflow.models as m\nm.a._b(1)", ["airflow.models.a._b"]),
        ("from prefect import runner\nrunner.Runner.submit = f", ["assigns prefect.runner.Runner.submit"]),
        ("import dbt\ndbt.version.x += 1", ["assigns dbt.version.x"]),
        ("import dbt\nd = dbt.flags\nd._x", ["dbt.flags._x"]),
        ("from dbt.cli import main\nsetattr(main, 'cli', f)", ["assigns dbt.cli.main.cli"]),
        ("from dbt.cli import main\ngetattr(main, '_cli')", ["dbt.cli.main._cli"]),
        ("from airflow import Base\nclass A(Base):\n    def run(self):\n        super()._run()", ["airflow.Base._run"]),
        ("import importlib\nimportlib.import_module('cosmos._utils')", ["cosmos._utils"]),
        ("def f():\n    from prefect import _x", ["prefect._x"]),
        ("from airflow.utils.session import create_session", ["airflow.utils.session.create_session"]),
        ("from multiprocessing import forkserver\nforkserver._forkserver.x()", ["multiprocessing.forkserver._forkserver"]),
        ("import sqlalchemy\ntext('INSERT INTO dag_run values (1)')", ["writes: INSERT INTO dag_run values (1)"]),
        ("from psycopg2 import connect\nq = f' update x set y = {z}'", ["writes: update x set y ="]),
    ],
)
def test_the_check_finds_private_names(source, expected) -> None:
    assert [what for _, what in private_names(source)] == expected


@pytest.mark.parametrize(
    "source",
    [
        "from dagster import Definitions\nDefinitions(assets=[])",
        "import dagster\ndagster.__version__",
        "import os\nos._exit(0)",
        "from rundbt import project_files\nproject_files._locked()\nproject_files.x = 1",
        "class A:\n    def f(self):\n        self._x = 1\n        return self._x",
        "from prefect import flow\nflow = other\nflow._x",
        "q = 'insert into x'",
        "import sqlalchemy\ntext('select 1')",
        "from . import _own",
        "import dbtfoo._x",
    ],
)
def test_the_check_leaves_public_names_alone(source) -> None:
    assert private_names(source) == []
