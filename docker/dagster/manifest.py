"""Adapts dbt's manifest for dagster-dbt."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any


def adapted(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, with tests that dagster-dbt can turn into checks.

    Six digits of a hash are appended to the names of tests that share one: dbt replaces characters other than letters and digits in a
    test's name with _, and identifies a test by a hash; dagster-dbt identifies a check by that name. Parents other than nodes and sources,
    which are functions, are removed from tests: dagster-dbt fails the run when it looks for their assets.
    """
    tests = {unique_id: node for unique_id, node in manifest["nodes"].items() if node["resource_type"] == "test"}
    names = Counter(node["name"] for node in tests.values())
    for unique_id, node in tests.items():
        if names[node["name"]] > 1:
            node["name"] += "_" + hashlib.sha256(unique_id.encode()).hexdigest()[:6]
        for parents in (node["depends_on"]["nodes"], manifest.get("parent_map", {}).get(unique_id, [])):
            parents[:] = [parent for parent in parents if parent in manifest["nodes"] or parent in manifest["sources"]]
    return manifest
