"""The lock with which one command at a time changes the stack, and the one with which it waits for commands that follow a run."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from switchyard import console, settings
from switchyard.errors import BadConfiguration, Locked

FOLLOWERS_TIMEOUT_S = 30  # seconds

if sys.platform == "win32":
    import msvcrt

    def _try(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _share(file: BinaryIO) -> None:
        file.seek(os.getpid())  # Windows has no shared locks here: each process locks a separate byte
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

    def _try_all(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 2**31 - 1)
else:
    import fcntl

    def _try(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _share(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_SH)

    _try_all = _try


@contextmanager
def held(root: Path, command: str, seconds: float = 300) -> Iterator[int]:
    """Hold the stack's lock. The operating system releases it when no process has it open any more, however the processes ended.

    Args:
        root: the checkout; the lock is ``.stack/lock`` in it.
        command: the name that is shown to other commands that wait for the lock.
        seconds: how long to wait for another command to finish.

    Yields:
        The lock's file descriptor. A program that inherits it holds the lock too. So if a command is killed, the next one waits
        until the programs that it had started, which continue to change the stack, have ended.

    Raises:
        Locked: another command still held it after ``seconds``; the message names the command.
    """
    folder = _folder(root)
    holder = folder / "lock-holder"
    with open(folder / "lock", "ab+") as file:
        if not _tried(file):
            who = _holder(holder)
            with console.Waiting("wait for", f"{who} to finish"):
                deadline = time.monotonic() + seconds
                while not _tried(file):
                    if time.monotonic() > deadline:
                        raise Locked(
                            f"{_holder(holder)} is still changing the stack after {seconds:.0f} s.",
                            "Two commands at once would disturb each other.",
                            "Wait until it is done, or end it; then try again.",
                        )
                    time.sleep(0.2)
        with suppress(OSError):  # a full disk; the file only shows other commands who holds the lock
            holder.write_text(f"invoke {command} (process {os.getpid()})", encoding="utf-8")
        try:
            yield file.fileno()
        finally:
            holder.unlink(missing_ok=True)


@contextmanager
def alone(root: Path, name: str) -> Iterator[None]:
    """Be the only process of this checkout that works on something beside the stack.

    Args:
        root: the checkout; the lock is a file in its ``.stack``.
        name: the name of the lock, and of what others have to wait for.

    Raises:
        Locked: another process is doing it.
    """
    with open(_folder(root) / f"{name}.lock", "ab+") as file:
        if not _tried(file):
            raise Locked(f"{name} is in use by another command.", "Each would remove what the other has started.", "Wait until it is done.")
        yield


@contextmanager
def following(root: Path) -> Iterator[None]:
    """Follow a run. A command that stops the orchestrator after the run also waits until this has read how the run ended."""
    with open(_folder(root) / "following", "ab+") as file:
        _share(file)
        yield


def wait_for_followers(root: Path) -> None:
    """Wait until no command is `following` a run of this checkout, for `FOLLOWERS_TIMEOUT_S` at most: one may be suspended."""
    deadline = time.monotonic() + FOLLOWERS_TIMEOUT_S
    with open(_folder(root) / "following", "ab+") as file:
        while not _tried(file, _try_all) and time.monotonic() < deadline:
            time.sleep(0.1)


def _folder(root: Path) -> Path:
    folder = root / ".stack"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        raise BadConfiguration(f"{folder} is not a folder.", "The stack's files belong there.", "Move it away, then try again.") from None
    settings.keep_private(folder)
    return folder


def _tried(file: BinaryIO, attempt: Callable[[BinaryIO], None] = _try) -> bool:
    try:
        attempt(file)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        why = f"Two commands at once would disturb each other, and {file.name} cannot be locked: {error.strerror}."
        raise BadConfiguration("The checkout is on a file system without locks.", why, "Copy it to a folder on this machine.") from None
    return True


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another command"
    except OSError:
        return "another command"
