"""The manifest that dagster-dbt gets: tests that it can turn into checks."""

from __future__ import annotations

import importlib.util

from ..stacks import ROOT

MODULE = importlib.util.spec_from_file_location("dagster_manifest", ROOT / "docker" / "dagster" / "manifest.py")
assert MODULE
manifest = importlib.util.module_from_spec(MODULE)
MODULE.loader.exec_module(manifest)

SOURCE = "source.p.raw.orders"


def adapted(**tests: tuple) -> dict:
    """The manifest of a project with a model, a source, a function and ``tests``, each a name and its parents."""
    nodes = {
        f"test.p.{key}": {"resource_type": "test", "name": name, "depends_on": {"nodes": list(parents)}}
        for key, (name, *parents) in tests.items()
    }
    return manifest.adapted(
        {
            "nodes": {"model.p.a": {"resource_type": "model", "name": "a"}, **nodes},
            "sources": {SOURCE: {}},
            "functions": {"function.p.f": {}},
            "parent_map": {unique_id: [*node["depends_on"]["nodes"]] for unique_id, node in nodes.items()},
        }
    )


def names(**tests: tuple) -> list[str]:
    """The names of the tests."""
    return [node["name"] for node in adapted(**tests)["nodes"].values() if node["resource_type"] == "test"]


def test_only_tests_that_share_a_name_get_a_hash() -> None:
    first, second, other = names(one=("values_a__",), two=("values_a__",), three=("unique_a",))
    assert first != second
    assert {first[:-7], second[:-7]} == {"values_a__"}
    assert other == "unique_a"


def test_a_test_has_a_name_that_dagster_accepts() -> None:
    assert names(one=("unique_order-items_id",), two=("größe",)) == ["unique_order_items_id", "gr__e"]
    assert len(set(names(one=("a-b",), two=("a_b",)))) == 2


def test_a_test_has_no_parents_but_nodes_and_sources() -> None:
    """dagster-dbt takes a function for one of them, and then fails the run."""
    found = adapted(both=("t", "model.p.a", SOURCE, "function.p.f"), only=("u", "function.p.f"))
    assert found["nodes"]["test.p.both"]["depends_on"]["nodes"] == found["parent_map"]["test.p.both"] == ["model.p.a", SOURCE]
    assert found["nodes"]["test.p.only"]["depends_on"]["nodes"] == found["parent_map"]["test.p.only"] == []
