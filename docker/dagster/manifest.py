"""Adapts dbt's manifest for dagster-dbt."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any


def adapted(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, with tests that dagster-dbt can turn into checks.

    In their names, characters other than letters and digits become _, as Dagster requires; dbt leaves some, such as a dash in a file's
    name. Six digits of a hash are appended to names that tests then share: dbt identifies a test by a hash, dagster-dbt identifies a check
    by that name. Parents other than nodes and sources, which are functions, are removed from tests: dagster-dbt fails the run when it looks
    for their assets.
    """
    tests = {unique_id: node for unique_id, node in manifest["nodes"].items() if node["resource_type"] == "test"}
    for node in tests.values():
        node["name"] = re.sub(r"\W", "_", node["name"], flags=re.ASCII)
    names = Counter(node["name"] for node in tests.values())
    for unique_id, node in tests.items():
        if names[node["name"]] > 1:
            node["name"] += "_" + hashlib.sha256(unique_id.encode()).hexdigest()[:6]
        for parents in (node["depends_on"]["nodes"], manifest.get("parent_map", {}).get(unique_id, [])):
            parents[:] = [parent for parent in parents if parent in manifest["nodes"] or parent in manifest["sources"]]
    return manifest
