"""The compose override of a project that is not the shop, or of a baked start."""

from __future__ import annotations

import json

from switchyard import project as projects
from switchyard.orchestrators import Orchestrator
from switchyard.project import Project
from switchyard.runtimes.docker.argv import LABEL_BAKED

WAREHOUSE_VOLUME = "warehouse-volume"
VALUE = "SWITCHYARD_VALUE_"  # the prefix of the project's variables where Compose reads them: `.env` may have the same names


def embedded(project: Project) -> bool:
    """Whether the warehouse is a file that the stack stores, such as DuckDB's."""
    return "SWITCHYARD_WAREHOUSE_PATH" in str(project.output)


def override(orchestrator: Orchestrator, project: Project, *, baked: bool) -> str:
    """A compose override for every service that mounts the dbt project; an empty text if there is nothing to override.

    Args:
        orchestrator: the orchestrator.
        project: the override adds what it needs: the names of its variables, whose values Compose takes from its environment, so that
            they are in no file; the files that its profile names; and a volume for an embedded database.
        baked: whether to remove the mount of the project.
    """
    volumes = [f"{str(path).replace('$', '$$')}:{projects.FILES}/{key}:ro" for key, path in project.files.items()]
    volumes += [f"{WAREHOUSE_VOLUME}:/opt/dbt/warehouse"] if embedded(project) else []
    variables = sorted(project.in_container())
    if not (baked or volumes or variables):
        return ""
    lines = ["services:"]
    for service, others in orchestrator.mounts.items():
        lines.append(f"  {service}:")
        if variables:
            lines.append(f"    environment: {json.dumps({key: f'${{{VALUE}{key}}}' for key in variables})}")
        if baked:
            lines += [f'    labels: {{{LABEL_BAKED}: "true"}}']
            kept = [*others, *volumes]
            lines.append(f"    volumes: !override {json.dumps(kept)}" if kept else "    volumes: !reset []")
        elif volumes:
            lines.append(f"    volumes: {json.dumps(volumes)}")
    if embedded(project):
        lines += ["volumes:", f"  {WAREHOUSE_VOLUME}:"]
    return "\n".join(lines) + "\n"
