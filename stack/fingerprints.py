"""What an image was built from, as fingerprints that its labels carry: so `up` knows what is out of date."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import yaml

from stack import certificates
from switchyard import project

BASE_IMAGE_KEYS = ("POSTGRES_IMAGE", "PYTHON_IMAGE", "AIRFLOW_IMAGE")


def dbt_project(root: Path) -> str:
    """The fingerprint of everything in the dbt project: what a baked run needs to be current."""
    return project.fingerprint(root / "dbt_project")


def environment(root: Path, image: str, values: Mapping[str, str]) -> str:
    """The fingerprint of what an image holds besides models: code, locked requirements, dbt packages, certificates, base image.

    Args:
        root: the checkout.
        image: a folder's name below ``docker/``.
        values: the settings, for the base images' names.
    """
    digest = hashlib.sha256()
    for folder in (root / "docker" / "common", root / "docker" / image, *_packages(root / "dbt_project")):
        digest.update(project.fingerprint(folder).encode())
    for file in ("packages.yml", "package-lock.yml"):
        path = root / "dbt_project" / file
        digest.update(path.read_bytes() if path.exists() else b"-")
    for path in certificates.find(root):
        digest.update(path.read_bytes())
    digest.update("\n".join(values[key] for key in BASE_IMAGE_KEYS).encode())
    return digest.hexdigest()[:16]


def _packages(dbt: Path) -> list[Path]:
    """The folders of the project's local packages, which ``dbt deps`` puts into the image."""
    content = yaml.safe_load((dbt / "packages.yml").read_text(encoding="utf-8")) or {}
    return [dbt / package["local"] for package in content.get("packages", []) if "local" in package]
