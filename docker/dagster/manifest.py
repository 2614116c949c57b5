"""The dbt manifest in the shape in which it makes one unbroken asset graph."""

from __future__ import annotations

import json
from typing import Any

from switchyard import project


def load_manifest() -> tuple[dict[str, Any], str]:
    """Parse the project where needed, and return its manifest and its fingerprint.

    Raises:
        switchyard.project.ParseFailed: dbt rejected the project.
    """
    path, fingerprint = project.ensure_manifest()
    manifest = json.loads(path.read_bytes())
    _merge_sources_into_seeds(manifest)
    _attach_singular_tests(manifest)
    return manifest, fingerprint


def _merge_sources_into_seeds(manifest: dict[str, Any]) -> None:
    """Let what reads a source that a seed fills depend on the seed: they are one table, and so one asset."""
    seeds = {(node["schema"], node["alias"]): unique_id for unique_id, node in manifest["nodes"].items() if node["resource_type"] == "seed"}
    same = {
        unique_id: seeds[table]
        for unique_id, source in manifest["sources"].items()
        if (table := (source["schema"], source["identifier"])) in seeds
    }
    for node in manifest["nodes"].values():
        parents = node.get("depends_on", {}).get("nodes", [])
        parents[:] = dict.fromkeys(same.get(parent, parent) for parent in parents)
    del manifest["child_map"]  # dagster-dbt makes it anew from the above


def _attach_singular_tests(manifest: dict[str, Any]) -> None:
    """Make a test that reads several models a check of the one that it names first."""
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test" and not node.get("attached_node") and node["depends_on"]["nodes"]:
            node["attached_node"] = node["depends_on"]["nodes"][0]
