"""What an image was built from, as fingerprints that its labels carry: so `up` knows what is out of date."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rundbt import project_files
from switchyard import certificates
from switchyard.orchestrators import NATIVE
from switchyard.project import Project
from switchyard.settings import Settings


def base_image_keys(root: Path) -> list[str]:
    """The settings that name base images: the Dockerfiles' arguments that end with ``_IMAGE``.

    Args:
        root: the checkout.
    """
    texts = (path.read_text(encoding="utf-8") for path in root.glob("docker/*/Dockerfile"))
    return sorted({key for text in texts for key in re.findall(r"^ARG (\w+_IMAGE)\b", text, re.M)})


def image_fingerprint(settings: Settings, image: str, project: Project | None) -> str:
    """The fingerprint of what an image holds besides models: code, locked requirements, dbt packages, certificates, base image.

    Args:
        settings: the checkout's settings, with the base images' names.
        image: a folder's name below ``docker/``.
        project: the dbt project; None for PostgreSQL, which knows of none.
    """
    digest = hashlib.sha256()
    for folder in (settings.root / "rundbt", settings.root / "docker" / "uv", settings.root / "docker" / image):
        # No image has native.yaml, nor what is for `invoke eject`.
        built = (path for path in project_files.files(folder) if path != folder / NATIVE and folder / "helm" not in path.parents)
        digest.update(project_files.digest(folder, built).encode())
    for path in certificates.find(settings.root):
        digest.update(path.read_bytes())
    digest.update("\n".join(settings[key] for key in base_image_keys(settings.root)).encode())
    digest.update((project.dependencies_fingerprint() if project else "").encode())
    return digest.hexdigest()[:16]
