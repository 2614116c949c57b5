"""Deletes the folders of old runs (RETENTION_DAYS in .env)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path


def delete_folders(folders: Iterable[Path], before: datetime) -> None:
    """Delete the folders that were not written to, in any part, since ``before``.

    Args:
        folders: one for each run.
        before: the earliest time to keep.
    """
    for folder in folders:
        with suppress(FileNotFoundError):  # another service deletes it at this moment
            if max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) < before.timestamp():
                shutil.rmtree(folder, ignore_errors=True)
