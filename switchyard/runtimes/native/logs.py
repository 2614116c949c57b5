"""The logs of the native runtime's processes, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from switchyard import console


def show(files: Mapping[str, Path], *, follow: bool, tail: int) -> None:
    """Print the last lines of logs, each after its service's name; what is added after that, too, where they are followed.

    Args:
        files: each service's log.
        follow: whether to go on, without an end.
        tail: how many lines of each.
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
    """Print what was added to a log since ``position``, as far as its lines are complete; return the new position."""
    size = path.stat().st_size if path.exists() else 0
    if size < position:
        position = 0  # it was started again
    if size == position:
        return position
    with open(path, "rb") as file:
        file.seek(position)
        content = file.read()
    complete = content[: content.rfind(b"\n") + 1]
    for line in complete.decode("utf-8", "replace").splitlines():
        console.plain(f"{label}  | {line}")
    return position + len(complete)
