"""What an image was built from, as fingerprints that its labels carry: so `up` knows what is out of date."""

from __future__ import annotations

import hashlib

from rundbt import project as files
from switchyard import certificates
from switchyard.orchestrators import NATIVE
from switchyard.project import Project
from switchyard.settings import Settings

BASE_IMAGE_KEYS = ("POSTGRES_IMAGE", "PYTHON_IMAGE", "AIRFLOW_IMAGE")


def dbt_project(project: Project) -> str:
    """The fingerprint of everything in the dbt project: what a baked run needs to be current."""
    return files.fingerprint(project.folder)


def environment(settings: Settings, image: str, project: Project | None) -> str:
    """The fingerprint of what an image holds besides models: code, locked requirements, dbt packages, certificates, base image.

    Args:
        settings: the checkout's settings, with the base images' names.
        image: a folder's name below ``docker/``.
        project: the dbt project; None for PostgreSQL, which knows of none.
    """
    digest = hashlib.sha256()
    for folder in (settings.root / "rundbt", settings.root / "docker" / image):
        # No image has native.yaml, nor what is for `invoke eject`.
        built = (path for path in files.files(folder) if path != folder / NATIVE and folder / "helm" not in path.parents)
        digest.update(files.digest(folder, built).encode())
    for path in certificates.find(settings.root):
        digest.update(path.read_bytes())
    digest.update("\n".join(settings[key] for key in BASE_IMAGE_KEYS).encode())
    digest.update((project.environment() if project else "").encode())
    return digest.hexdigest()[:16]
