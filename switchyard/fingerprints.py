"""Fingerprints of what an image was built from. Its labels carry them, so that `up` can find out what is out of date."""

from __future__ import annotations

import hashlib
import re

from rundbt import project_files
from switchyard import certificates, settings
from switchyard.errors import BadConfiguration
from switchyard.orchestrators import NATIVE
from switchyard.project import Project
from switchyard.settings import Settings


def base_images(loaded: Settings, image: str = "*") -> dict[str, str]:
    """The base images by their settings: the Dockerfiles' arguments that end with ``_IMAGE``.

    Args:
        loaded: the checkout's settings.
        image: a folder's name below ``docker/``; by default all of them.

    Raises:
        BadConfiguration: there is no such setting.
    """
    found = {}
    for path in sorted(loaded.root.glob(f"docker/{image}/Dockerfile")):
        for key, default in re.findall(r"^ARG (\w+_IMAGE)\b(?:=(\S+))?", path.read_text(encoding="utf-8"), re.M):
            if not loaded.values.get(key):
                raise BadConfiguration(
                    f"The setting {key} has no value in .env.example.",
                    f"{path.relative_to(loaded.root).as_posix()} has it as an argument.",
                    f"Write {key}={default or '<image>'} in .env.example.",
                )
            found[key] = loaded[key]
    return found


def check_base_images(loaded: Settings, image: str = "*") -> str:
    """Make sure that the versions are those that the locks are made for; an image without a tag is not checked.

    Args:
        loaded: the checkout's settings.
        image: a folder's name below ``docker/``; by default all of them.

    Raises:
        BadConfiguration: one is not.
    """
    default = base_images(settings.defaults(loaded.root, {}), image)
    for key, value in base_images(loaded, image).items():
        wanted, found = (re.search(r":([^/:]+)$", name.partition("@")[0]) for name in (default[key], value))
        if wanted and found and found[1] != wanted[1]:
            raise BadConfiguration(
                f"{key} has the version {found[1]}; the locked packages are for {wanted[1]}.",
                "It is the default of an earlier version, or you have set it.",
                f"Delete the line {key} in .env, or change it to {wanted[1]}.",
            )
    return "those that the locked packages are for"


def image_fingerprint(settings: Settings, image: str, project: Project | None) -> str:
    """The fingerprint of everything in an image except models: code, locked requirements, dbt packages, certificates, base image.

    Args:
        settings: the checkout's settings, with the base images' names.
        image: a folder's name below ``docker/``.
        project: the dbt project; None for PostgreSQL, which has none.
    """
    root, folder = settings.root, settings.root / "docker" / image
    # No image contains native.yaml, nor the files for `invoke eject`.
    built = [path for path in project_files.files(folder) if path != folder / NATIVE and folder / "helm" not in path.parents]
    if project:
        built += [*project_files.files(root / "rundbt"), *certificates.find(root)]
        dockerfiles = (path.read_text(encoding="utf-8") for path in built if path == folder / "Dockerfile")
        if any("docker/uv/" in text for text in dockerfiles):  # not in Airflow's, whose base image has uv
            built += project_files.files(root / "docker" / "uv")
    else:  # the locks are those of the native runtime
        built = [path for path in built if not path.name.startswith("requirements")]
    digest = hashlib.sha256(project_files.digest(root, built).encode())
    digest.update("\n".join(base_images(settings, image).values()).encode())
    digest.update((project.dependencies_fingerprint() if project else "").encode())
    return digest.hexdigest()[:16]
