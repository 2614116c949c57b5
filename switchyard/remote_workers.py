"""`invoke worker-env`: what another machine needs to run workers of this stack. The machines form a Docker swarm, for its networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from switchyard import eject
from switchyard import project as projects
from switchyard.errors import BadUsage
from switchyard.orchestrators import Orchestrator
from switchyard.placeholders import SETTING
from switchyard.project import Project
from switchyard.release import Release
from switchyard.runtimes.docker.checks import OVERLAY
from switchyard.runtimes.docker.override import embedded
from switchyard.runtimes.runtime import Service
from switchyard.settings import Settings, for_compose

REMOTE = "SWITCHYARD_REMOTE"  # set for a worker on another machine
ALONE = "--skip-serve-logs"  # for workers that share the volume of the logs with all services


def check(settings: Settings, project: Project) -> None:
    """Make sure that workers can run on another machine.

    Raises:
        BadUsage: the image, the network or the warehouse is on this machine only, or there are no workers.
    """
    if not settings["RELEASE_FILE"]:
        raise BadUsage(
            "No release is in use.",
            "Workers on another machine pull a release's image from its registry.",
            "invoke up --release releases/TAG/release.json --workers 1",
        )
    if not settings["WORKERS"]:
        raise BadUsage("There are no workers.", "WORKERS in .env is 0.", "invoke up --workers 1")
    if embedded(project):
        raise BadUsage(
            "The warehouse is a file on this machine.",
            "Workers on another machine would build another file.",
            "invoke use FOLDER --warehouse shared",
        )
    if settings["NETWORK"] != OVERLAY:
        raise BadUsage(
            "The stack's network is on this machine only.",
            "Services on several machines need an overlay network, and so a Docker swarm (docs/scaling.md).",
            f"docker swarm init, NETWORK={OVERLAY} in .env, invoke down, invoke up",
        )


def require_workers(target: Orchestrator, services: Iterable[Service], number: str) -> None:
    """Make sure that the stack was started with workers: only then is there a broker.

    Args:
        target: the active orchestrator.
        services: those that are up.
        number: of workers, from the settings.

    Raises:
        BadUsage: it was started without.
    """
    if target.scaled and not any(service.name in target.scaled for service in services):
        raise BadUsage(
            f"{target.title} was started without workers.", f"WORKERS in .env was changed to {number} after that.", f"invoke scale {number}"
        )


def require_network(there: str) -> None:
    """Make sure that the stack was started with a network for several machines: NETWORK in ``.env`` may be newer.

    Args:
        there: the driver of its network.

    Raises:
        BadUsage: it was started with another.
    """
    if there != OVERLAY:
        raise BadUsage(
            "The stack's network is still on this machine only.",
            f"NETWORK in .env was changed to {OVERLAY} after the start.",
            "invoke down, then invoke up, then the same command",
        )


def files(settings: Settings, target: Orchestrator, project: Project, release: Release) -> dict[str, str | bytes]:
    """The files by name: a Compose file, an `.env` with the secrets, and the files that the profile names.

    Args:
        settings: those of the checkout, with the release.
        target: the orchestrator.
        project: the release's project.
        release: the release whose image runs.
    """
    own = yaml.safe_load(target.file.read_text(encoding="utf-8"))
    variables: dict[str, Any] = {"environment": {key: f"${{{eject.OF_PROJECT}{key}}}" for key in project.in_container()}}
    variables["environment"][REMOTE] = "1"
    variables["volumes"] = [f"./{key}:{projects.FILES}/{key}:ro" for key in project.files]
    body = eject.service(own["services"][target.worker], release.images[target.name], variables)
    body.pop("depends_on", None)  # they are on the first machine
    body["command"] = [word for word in body["command"] if word != ALONE]
    body["deploy"] = {"replicas": "${WORKERS:-1}"}
    # Not an external network: Compose 2.22 and later look for it, and a machine of a swarm learns of it with the first container on it
    # (docker/compose#11894).
    body["network_mode"] = f"{settings.compose_name}_default"
    volumes = {volume.partition(":")[0] for volume in body.get("volumes", [])}
    content: dict[str, Any] = {"name": f"{settings.compose_name}-workers", "services": {target.worker: body}}
    content["volumes"] = {name: None for name in own.get("volumes", {}) if name in volumes}
    text = yaml.dump(content, Dumper=eject.Plain, sort_keys=False, width=1000)
    values = {**settings.values, **{f"{eject.OF_PROJECT}{key}": value for key, value in project.in_container().items()}, "WORKERS": "1"}
    used = sorted({match[2] for match in SETTING.finditer(text) if match[2]})
    return {
        "compose.yaml": f"# Workers of {target.title}, release {release.tag}: docker compose up -d --wait\n{text}",
        eject.ENV: "".join(f"{key}={for_compose(values.get(key, ''))}\n" for key in used),
        **{key: path.read_bytes() for key, path in project.files.items()},
    }
