"""A release, from its file: images by digest that contain a dbt project, made by `invoke release`, run by `invoke up --release`."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from switchyard.errors import BadConfiguration

SCHEMA = 2
IMAGE_KEY = "SWITCHYARD_IMAGE_"  # followed by the image's name in capitals: the variable in the compose files
TAG_KEY = "SWITCHYARD_RELEASE"
SHOP_KEY = "SWITCHYARD_SHOP"  # set where the release's project is the one that comes with the checkout
_IMAGE = re.compile(r"[\w.:/-]+@sha256:[0-9a-f]{64}|sha256:[0-9a-f]{64}")
_BROKER = re.compile(r"(\w[\w.:/-]*(@sha256:[0-9a-f]{64})?)?")


@dataclass(frozen=True)
class Release:
    """The content of a release's file.

    Attributes:
        file: the path of the file.
        tag: its name, such as 2026.11.1.
        commit: the commit of the checkout that it was made from.
        images: for ``postgres`` and each orchestrator, the image's address with its digest.
        target: the target of the project's profile.
        shared: whether the warehouse is the stack's own PostgreSQL.
        shop: whether the project is the one that comes with the checkout.
        versions: for each orchestrator, the versions of the products in its image, by package.
        broker: the address of Redis' image, for workers; with its digest if its registry answered. Empty in older files.
    """

    file: Path
    tag: str
    commit: str
    images: Mapping[str, str]
    target: str
    shared: bool
    shop: bool
    versions: Mapping[str, Mapping[str, str]]
    broker: str

    def folder(self, root: Path) -> Path:
        """Where the project in its images is unpacked, so that the commands can read it."""
        digest = hashlib.sha256("\n".join(sorted(self.images.values())).encode()).hexdigest()[:12]
        return root / ".stack" / "releases" / digest

    def settings(self, root: Path) -> dict[str, str]:
        """The settings that the release determines."""
        return {
            **{image_key(name): address for name, address in self.images.items()},
            "DBT_PROJECT": str(self.folder(root)),
            "DBT_TARGET": self.target,
            "WAREHOUSE": "shared" if self.shared else "own",
            "RUNTIME": "docker",
            SHOP_KEY: "1" if self.shop else "",
            TAG_KEY: self.tag,
        }

    def keep(self, root: Path) -> str:
        """Copy the file into the checkout, where it stays while the release is in use; returns the value for RELEASE_FILE."""
        copy = self.folder(root).with_suffix(".json")
        if self.file != copy:
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(self.file, copy)
        return copy.relative_to(root).as_posix()


class NoRelease(BadConfiguration):
    """A file cannot be read, or is not the file of a release."""


def image_key(name: str) -> str:
    """The variable with the address of the image ``name``."""
    return IMAGE_KEY + name.upper()


def read(path: Path) -> Release:
    """Read a release's file.

    Raises:
        NoRelease: it cannot be read, or is not the file of a release.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        project, images, broker = content["project"], dict(content["images"]), content.get("broker", "")
        addresses = images and all(map(_IMAGE.fullmatch, images.values())) and _BROKER.fullmatch(broker)
        if content["schema"] != SCHEMA or not addresses:
            raise ValueError(f"its schema is {content['schema']}, and this checkout reads {SCHEMA}, with images by their digest")
        versions = {name: dict(found) for name, found in content["versions"].items()}
        of_project = project["target"], project["shared"], project["shop"]
        return Release(path, content["tag"], content["commit"], images, *of_project, versions, broker)
    except OSError as error:
        why = error.strerror or str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
    raise NoRelease(
        f"{path} is not a release.", why, "invoke up --release FILE, with a file from invoke release; or clear RELEASE_FILE in .env."
    ) from None


def noted(root: Path, value: str) -> Path:
    """The file in RELEASE_FILE; a relative path is relative to the checkout."""
    return root / Path(value).expanduser()


def command(path: Path, root: Path) -> str:
    """The command that runs the release in a file."""
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return f"invoke up --release {shlex.quote(shown.as_posix())}"
