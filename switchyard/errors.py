"""Errors that a user can cause or meet: what happened, why, what to type next, and an exit code for each kind."""

from __future__ import annotations

import re
from collections.abc import Mapping


class StackError(Exception):
    """Something the user can understand and act on; printed without a traceback.

    Args:
        what: what happened, one sentence.
        why: the reason or the evidence; may have several lines.
        next: the exact command to type, or the thing to change.

    Attributes:
        code: the process's exit code; each subclass has its own (docs/commands.md).
    """

    code = 1

    def __init__(self, what: str, why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.next = what, why, next

    def __str__(self) -> str:
        lines = [f"Error: {self.what}"]
        for label, text in (("why", self.why), ("next", self.next)):
            if text:
                lines += [f"  {label + ':' if not i else '':<6}{line}" for i, line in enumerate(text.splitlines())]
        return "\n".join(lines)


def name_the_shell(error: StackError, environ: Mapping[str, str]) -> None:
    """If the next step edits a key in ``.env`` that is also set in the shell, which wins, add that to the next step."""
    for key in set(re.findall(r"\b([A-Z][A-Z0-9_]+)\b(?=(?: \w+)? in \.env\b)", f"{error.what} {error.why} {error.next}")):
        if environ.get(key):
            error.next += f"\n{key} is set in your shell, which wins over .env: unset it there, or correct it there."


class RunFailed(StackError):
    """A dbt node or an SQL statement failed, or something else without its own code."""

    code = 1


class BadUsage(StackError):
    """An invalid name, number or combination of options, or a confirmation declined."""

    code = 2


class EngineMissing(StackError):
    """The Docker engine (or without Docker, PostgreSQL's programs) cannot be used, or a Python package is missing."""

    code = 3


class AlreadyActive(StackError):
    """An orchestrator that the command would have to stop or replace, or the other runtime, is up."""

    code = 4


class BadConfiguration(StackError):
    """``.env``, a compose file, the dbt project or the checkout's location cannot be used as it is."""

    code = 5


class BuildFailed(StackError):
    """An image, or without Docker an environment, could not be built."""

    code = 6


class NotHealthy(StackError):
    """A service did not become healthy."""

    code = 7


class NothingActive(StackError):
    """The command needs a running orchestrator or database, and there is none."""

    code = 8


class PortInUse(StackError):
    """A port that the stack publishes is in use by another program."""

    code = 9


class ApiUnusable(StackError):
    """The orchestrator's API could not be reached or gave no usable answer."""

    code = 10


class Locked(StackError):
    """Another command was still changing the stack after five minutes of waiting, or is using the same test stack."""

    code = 11


class StillStarting(StackError):
    """A service was still starting at the timeout; ``invoke up`` continues to wait."""

    code = 12


def still_starting(title: str, seconds: float) -> StillStarting:
    """The error for services that are still starting after ``seconds``."""
    return StillStarting(
        f"{title} is still starting after {seconds:.0f} s.",
        "Nothing has failed: what was started continues.",
        "invoke up   (continues to wait)",
    )


class RunInProgress(StackError):
    """A run is in progress that the command would end or disturb: wait for its end (``switch`` and ``down``: ``--wait``), or cancel it."""

    code = 13


class IncompatibleData(StackError):
    """The data was made by another PostgreSQL version."""

    code = 14


class OutOfMemory(StackError):
    """A service ran out of memory, or there is too little to start one."""

    code = 15


class ImageUnavailable(StackError):
    """A base image, or one of a release, cannot be pulled."""

    code = 16


class NoSpace(StackError):
    """The disk is full, or nearly."""

    code = 17


class BadBackup(StackError):
    """A backup could not be made, or the file to restore is not one."""

    code = 18
