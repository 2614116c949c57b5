"""The shop on other warehouses than PostgreSQL: the marts have the same hashes, with the exceptions that are listed here."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from .. import own, runs
from ..stacks import MARTS, ROOT, copy_checkout, mostly_long
from .conftest import NativeStack, removed
from .test_own_project import ORCHESTRATORS

MODELS = Path("models", "marts", "_marts__models.yml")
# A row of a Parquet table cannot be changed: there is no snapshot, and the models that are incremental elsewhere are tables.
SNAPSHOT = "dim_product_prices"


class Port(NamedTuple):
    """The differences from the shop, besides the files in `tests/projects/ports`.

    Attributes:
        settings: changes to its dbt_project.yml.
        words: patterns and their replacements in the seeds' file and the marts' files.
    """

    settings: dict[str, Any]
    words: dict[str, str]


PORTS = {
    "duckdb": Port(
        # A fast load lists no columns, so the CSV file would need one for `_loaded_at`.
        {"seeds": {"shop": {"+fast": False}}},
        {r" +unique_key=\['payment_date', 'payment_method'\],\n": ""},  # dbt-duckdb refuses one in a microbatch
    ),
    "spark": Port(
        {
            "models": {"shop": {"+file_format": "parquet", "marts": {SNAPSHOT: {"+enabled": False}}}},
            "seeds": {"shop": {"+file_format": "parquet"}},
            "snapshots": {"shop": {"+enabled": False}},
            "exposures": {"shop": {"+enabled": False}},  # one depends on the snapshot
        },
        {r": text$": ": string", r": timestamptz$": ": timestamp", r"materialized='incremental'": "materialized='table'"},
    ),
}


def port(kind: str, folder: Path) -> Path:
    """Copy the shop into ``folder``, with the changes for an engine."""
    shutil.copytree(ROOT / "dbt_project", folder, ignore=shutil.ignore_patterns("dbt_packages", "target", "logs"))
    shutil.copytree(ROOT / "tests" / "projects" / "ports" / kind, folder, dirs_exist_ok=True)
    settings, words = PORTS[kind]
    content = yaml.safe_load((folder / "dbt_project.yml").read_text(encoding="utf-8"))
    merge(content, settings)
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    replaced = dict.fromkeys(words, 0)
    for file in (folder / "seeds" / "raw" / "_seeds.yml", *folder.glob("models/marts/*.*")):
        text = file.read_text(encoding="utf-8")
        for old, new in words.items():
            text, count = re.subn(old, new, text, flags=re.M)
            replaced[old] += count
        file.write_text(text, encoding="utf-8")
    assert all(replaced.values()), replaced
    return folder


def merge(content: dict[str, Any], changes: dict[str, Any]) -> None:
    """Merge nested changes into settings."""
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(content.setdefault(key, {}), value)
        else:
            content[key] = value


def types(project: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """For the table of each mart: the arguments of its `ref`, and its columns with their types."""
    found = {}
    for model in yaml.safe_load((project / MODELS).read_text(encoding="utf-8"))["models"]:
        name, columns = model["name"], {column["name"]: column["data_type"] for column in model["columns"]}
        for version in model.get("versions", ()):
            table = name if version["v"] == model["latest_version"] else f"{name}_v{version['v']}"
            own_columns = version.get("columns", ())
            left_out = {one for column in own_columns for one in column.get("exclude", ())}
            more = {column["name"]: column["data_type"] for column in own_columns if "name" in column}
            found[table] = f"'{name}', v={version['v']}", {**{one: kind for one, kind in columns.items() if one not in left_out}, **more}
        if "versions" not in model:
            found[name] = f"'{name}'", columns
    return found


def as_jsonb(value: Any, data_type: str) -> str:
    """A value as PostgreSQL writes it into a jsonb."""
    if value is None:
        return "null"
    kind, _, scale = data_type.rstrip(")").partition(",")
    if kind.startswith("numeric"):
        return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-int(scale))))
    if kind == "integer":
        return str(int(value))
    if kind == "date":
        return f'"{value[:10]}"'
    if kind == "timestamp":
        whole, _, part = value.replace(" ", "T").partition(".")
        return f'"{whole}.{part.rstrip("0")}"' if part.strip("0") else f'"{whole}"'
    return json.dumps(value, ensure_ascii=False)


def hashed(rows: list[dict[str, Any]], columns: dict[str, str]) -> tuple[int, str]:
    """Rows and content hash of a mart, as `Stack.hashes` computes them in PostgreSQL."""
    names = sorted(columns.keys() - {"load_fingerprint"}, key=lambda name: (len(name), name))
    texts = ["{" + ", ".join(f'"{name}": {as_jsonb(row[name], columns[name])}' for name in names) + "}" for row in rows]
    return len(rows), hashlib.md5("\n".join(sorted(texts)).encode()).hexdigest()


def marts(stack: NativeStack, project: Path, leave: Collection[str] = ()) -> dict[str, tuple[int, str]]:
    """Rows and content hash of each mart, read through dbt."""
    found = types(project)
    return {
        table: hashed(own.show(stack, f"select * from {{{{ ref({ref}) }}}}", "--limit", "-1"), columns)
        for table, (ref, columns) in found.items()
        if table not in leave
    }


@pytest.fixture(scope="module")
def duckdb(tmp_path_factory, bare_path) -> Iterator[tuple[NativeStack, Path]]:
    """A stack with the shop on DuckDB, and the project's folder."""
    folder = (tmp_path_factory.mktemp("ports") / "switchyard").resolve()
    copy_checkout(ROOT, folder)
    stack = NativeStack(folder, PATH=bare_path)
    project = port("duckdb", tmp_path_factory.mktemp("projects") / "shop")
    with removed(stack):
        assert "target file (duckdb)" in stack.invoke("use", str(project)).stdout
        yield stack, project


@pytest.mark.parametrize("name", mostly_long(ORCHESTRATORS, "dagster"))
def test_the_shop_on_duckdb_has_the_marts_of_postgresql(duckdb, name) -> None:
    stack, project = duckdb
    stack.on(name)
    for _ in range(2):  # the second one is incremental
        run = runs.record(stack)
        assert run["state"] == "success", run
    assert marts(stack, project) == MARTS
