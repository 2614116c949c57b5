"""What is deleted with old runs (RETENTION_DAYS in .env)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path


def delete_folders(folders: Iterable[Path], before: datetime) -> None:
    """Delete those folders of which nothing, nor anything in them, was written since.

    Args:
        folders: each of a run.
        before: since when.
    """
    for folder in folders:
        with suppress(FileNotFoundError):  # another service deletes it at this moment
            if max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) < before.timestamp():
                shutil.rmtree(folder, ignore_errors=True)
