"""What an engine, a build, a service or the system has said, read for what was the matter. Pure: no look at anything else."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from stack import checks
from stack.errors import BadConfiguration, NoSpace, NotHealthy, OutOfMemory, StackError


def start_failure(title: str, why: str, *, killed: Sequence[str] = (), more_memory: str = "", old_programs: str = "") -> StackError:
    """The error for a start that failed.

    Args:
        title: what was started.
        why: the evidence: the last lines of what its services logged.
        killed: the services of which a process was ended for want of memory during the start.
        more_memory: how such a service gets more.
        old_programs: how to run PostgreSQL of another major version.
    """
    if "database files are incompatible with server" in why:
        return checks.incompatible(why, old_programs)
    if "No space left on device" in why:
        return NoSpace(
            f"The disk is full; {title} did not start.", why, "Delete something, then: invoke up\nTo see how much is free: invoke doctor"
        )
    if killed:
        return OutOfMemory(f"{', '.join(killed)} ran out of memory and was killed; {title} did not start.", why, more_memory)
    return NotHealthy(f"{title} did not become healthy.", why, "invoke logs")


def refusal(error: OSError) -> StackError | None:
    """The error for what the system has refused to a command itself; None where no user could have caused it."""
    if error.errno == errno.ENOSPC:
        return NoSpace("The disk is full.", str(error), "Delete something, then look again: invoke doctor")
    if isinstance(error, PermissionError):
        return BadConfiguration(
            "A file of the checkout belongs to another account.",
            str(error),
            "Give the checkout to yourself (sudo chown -R $USER .), or use the account that it belongs to.",
        )
    return None
