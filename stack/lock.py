"""One command at a time may change the stack."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
def held(root: Path, command: str, seconds: float = 10) -> Iterator[None]:
    """Hold the stack's lock. The operating system drops it when the process ends, however it ends.

    Args:
        root: the checkout; the lock is ``.stack/lock`` in it.
        command: what to tell others who want the lock meanwhile.
        seconds: how long to wait for another command to finish.

    Raises:
        Locked: another command still held it after ``seconds``; the message says which.
    """
    folder = root / ".stack"
    folder.mkdir(mode=0o700, exist_ok=True)
    holder = folder / "lock-holder"
    with open(folder / "lock", "ab+") as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                _try(file)
                break
            except OSError:
                if time.monotonic() > deadline:
                    who = holder.read_text(encoding="utf-8") if holder.exists() else "another command"
                    raise Locked(
                        f"{who} is changing the stack.",
                        "Two commands at once would disturb each other.",
                        "Wait until it is done, then try again.",
                    ) from None
                time.sleep(0.2)
        holder.write_text(f"invoke {command} (process {os.getpid()})", encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
