"""Fingerprints of what an image was built from. Its labels carry them, so that `up` can find out what is out of date."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rundbt import project_files
from switchyard import certificates, settings
from switchyard.errors import BadConfiguration
from switchyard.orchestrators import NATIVE
from switchyard.project import Project
from switchyard.settings import Settings


def base_image_keys(root: Path, image: str = "*") -> list[str]:
    """The settings that name base images: the Dockerfiles' arguments that end with ``_IMAGE``.

    Args:
        root: the checkout.
        image: a folder's name below ``docker/``; by default all of them.
    """
    texts = (path.read_text(encoding="utf-8") for path in root.glob(f"docker/{image}/Dockerfile"))
    return sorted({key for text in texts for key in re.findall(r"^ARG (\w+_IMAGE)\b", text, re.M)})


def check_base_images(loaded: Settings, image: str = "*") -> str:
    """Make sure that the versions are those that the locks are made for; an image without a tag is not checked.

    Args:
        loaded: the checkout's settings.
        image: a folder's name below ``docker/``; by default all of them.

    Raises:
        BadConfiguration: one is not.
    """
    default = settings.defaults(loaded.root, {})
    for key in base_image_keys(loaded.root, image):
        wanted, found = (re.search(r":([^/:]+)$", values[key].partition("@")[0]) for values in (default, loaded))
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
    digest = hashlib.sha256()
    for folder in (settings.root / "rundbt", settings.root / "docker" / "uv", settings.root / "docker" / image):
        # No image contains native.yaml, nor the files for `invoke eject`.
        built = (path for path in project_files.files(folder) if path != folder / NATIVE and folder / "helm" not in path.parents)
        digest.update(project_files.digest(folder, built).encode())
    for path in certificates.find(settings.root):
        digest.update(path.read_bytes())
    digest.update("\n".join(settings[key] for key in base_image_keys(settings.root)).encode())
    digest.update((project.dependencies_fingerprint() if project else "").encode())
    return digest.hexdigest()[:16]
