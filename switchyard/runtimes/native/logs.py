"""The logs of the native runtime's processes, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from switchyard import console


def show(files: Mapping[str, Path], *, follow: bool, tail: int) -> None:
    """Print the last lines of logs, each after its service's name; with ``follow``, also what is added later.

    Args:
        files: each service's log.
        follow: whether to continue without an end.
        tail: the number of lines of each.
    """
    width = max(map(len, files))
    positions = {}
    for name, path in files.items():
        content = path.read_bytes() if path.exists() else b""
        positions[name] = len(content)
        for line in content.decode("utf-8", "replace").splitlines()[-tail:]:
            console.plain(f"{name:<{width}}  | {line}")
    while follow:
        time.sleep(0.2)
        for name, path in files.items():
            positions[name] = _show_new(name.ljust(width), path, positions[name])


def _show_new(label: str, path: Path, position: int) -> int:
    """Print the complete lines that were added to a log after ``position``; return the new position."""
    size = path.stat().st_size if path.exists() else 0
    if size < position:
        position = 0  # the service was restarted with a new log
    if size == position:
        return position
    with open(path, "rb") as file:
        file.seek(position)
        content = file.read()
    complete = content[: content.rfind(b"\n") + 1]
    for line in complete.decode("utf-8", "replace").splitlines():
        console.plain(f"{label}  | {line}")
    return position + len(complete)
