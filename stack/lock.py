"""One command at a time may change the stack."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stack import console
from stack.errors import Locked

if os.name == "nt":
    import msvcrt

    def _try(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def held(root: Path, command: str, seconds: float = 300) -> Iterator[int]:
    """Hold the stack's lock. The operating system drops it when nobody has it open any more, however they ended.

    Args:
        root: the checkout; the lock is ``.stack/lock`` in it.
        command: what to tell others who want the lock meanwhile.
        seconds: how long to wait for another command to finish.

    Yields:
        The lock's file descriptor. A program that inherits it holds the lock as well: so where a command is killed, the next
        one waits until the programs that it had started, and that go on changing the stack, are done.

    Raises:
        Locked: another command still held it after ``seconds``; the message says which.
    """
    folder = root / ".stack"
    folder.mkdir(mode=0o700, exist_ok=True)
    holder = folder / "lock-holder"
    with open(folder / "lock", "ab+") as file:
        if not _tried(file):
            who = _holder(holder)
            with console.Waiting(f"Waiting for {who} to finish"):
                deadline = time.monotonic() + seconds
                while not _tried(file):
                    if time.monotonic() > deadline:
                        raise Locked(
                            f"{_holder(holder)} is still changing the stack after {seconds:.0f} s.",
                            "Two commands at once would disturb each other.",
                            "Wait until it is done, or end it; then try again.",
                        )
                    time.sleep(0.2)
        holder.write_text(f"invoke {command} (process {os.getpid()})", encoding="utf-8")
        try:
            yield file.fileno()
        finally:
            holder.unlink(missing_ok=True)


def _tried(file: BinaryIO) -> bool:
    try:
        _try(file)
    except OSError:
        return False
    return True


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another command"
    except OSError:
        return "another command"
