"""What an engine, a build or a service has said, read for what was the matter. Pure: text in, an error out."""

from __future__ import annotations

from collections.abc import Sequence

from stack import checks
from stack.errors import NoSpace, NotHealthy, OutOfMemory, StackError


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
