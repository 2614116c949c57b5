"""The dbt project's files: their fingerprint, and a manifest that is never older than they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if os.name == "nt":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                time.sleep(0.1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


# dbt, by way of the warm one where there is one; see `switchyard.warm`.
DROP_IN = Path(__file__).parents[1] / "bin" / "dbt"
DBT = str(DROP_IN) if sys.platform == "linux" else "dbt"
# The same, for a run: it also ends when the process that started it is killed.
DBT_OF_A_RUN = str(DROP_IN.with_name("dbt_of_a_run")) if sys.platform == "linux" else DBT

PARTIAL = "partial_parse.msgpack"  # dbt 2 writes none
ARTIFACTS = ("manifest.json", PARTIAL)
IGNORED = {"target", "logs", "dbt_packages", "__pycache__", ".user.yml"}


class ParseFailed(Exception):
    """dbt could not parse the project; the text is dbt's own."""


def project_dir() -> Path:
    """The dbt project's folder, from DBT_PROJECT_DIR."""
    return Path(os.environ["DBT_PROJECT_DIR"])


def target_dir() -> Path:
    """Where manifests are kept, from SWITCHYARD_TARGET_PATH; always outside the project."""
    return Path(os.environ["SWITCHYARD_TARGET_PATH"])


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder of the manifests, in which no other process changes anything meanwhile."""
    target = target_dir()
    target.mkdir(parents=True, exist_ok=True)
    with open(target / ".lock", "wb") as lock:  # closing the file drops the lock
        _lock(lock)
        yield target


def adopt_baked() -> None:
    """Begin with the parse that the image carries, at SWITCHYARD_BAKED_PATH: the target is an empty folder in memory there."""
    with _locked() as target:
        _adopt_baked(target)


def _adopt_baked(target: Path) -> None:
    baked = os.environ.get("SWITCHYARD_BAKED_PATH")
    if baked and Path(baked) != target and not (target / "fingerprint").exists():
        for name in (*ARTIFACTS, "fingerprint"):
            if name != PARTIAL or Path(baked, name).exists():
                shutil.copy(Path(baked, name), target)


def fingerprint(project: Path | None = None) -> str:
    """Sixteen hex digits that change whenever a file of the dbt project is edited, added, renamed or removed.

    Content and names only, no times: the same project gives the same fingerprint on every machine.
    """
    root = project or project_dir()
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in IGNORED and not name.startswith("."))
        for name in sorted(files):
            if name in IGNORED or name.startswith(".") or name.endswith("~"):
                continue
            path = Path(folder, name)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def ensure_manifest(dbt: str = DBT) -> tuple[Path, str]:
    """Parse the project if it changed since the last parse, and return the manifest and the fingerprint it stands for.

    Safe to call from several processes at once: one parses, the others wait and use its result. The manifest of the
    image's build serves until the first edit. A failed parse leaves the last good manifest in place.

    Args:
        dbt: the dbt executable.

    Returns:
        The path of ``manifest.json`` and the project's fingerprint.

    Raises:
        ParseFailed: dbt rejected the project.
    """
    with _locked() as target:
        stamp = target / "fingerprint"
        manifest = target / "manifest.json"
        _adopt_baked(target)
        wanted = fingerprint()
        if manifest.exists() and stamp.exists() and stamp.read_text() == wanted:
            return manifest, wanted
        _parse(dbt, target)
        stamp.write_text(wanted)
        return manifest, wanted


def _parse(dbt: str, target: Path) -> None:
    """Run ``dbt parse`` in a scratch folder and move its results into place, each atomically."""
    with tempfile.TemporaryDirectory(dir=target, prefix="parse-") as scratch:
        if (target / PARTIAL).exists():
            shutil.copy(target / PARTIAL, scratch)
        done = subprocess.run(
            [dbt, "--no-use-colors", "--log-level", "error", "parse",
             "--project-dir", str(project_dir()), "--target-path", scratch, "--log-path", scratch],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise ParseFailed((done.stdout + done.stderr).strip())
        for name in ARTIFACTS:
            if name != PARTIAL or Path(scratch, name).exists():
                os.replace(Path(scratch, name), target / name)


if __name__ == "__main__":
    try:
        print(*ensure_manifest())
    except ParseFailed as error:
        sys.exit(str(error))
