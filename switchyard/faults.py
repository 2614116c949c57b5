"""Points between the steps of a command, at which a test can have it fail, be interrupted, be killed or stand still.

``SWITCHYARD_FAULT=ACTION@POINT``, such as ``kill@stopped``, does that where the command first comes to the point.
"""

from __future__ import annotations

import os
import signal
import sys

from switchyard.errors import StackError

# Windows has neither SIGKILL nor SIGSTOP.
SIGNALS = {"interrupt": signal.SIGINT, "kill": signal.SIGTERM}
if sys.platform != "win32":
    SIGNALS |= {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}
ACTIONS = ("error", *SIGNALS)
POINTS = (
    "prepared",  # what is to be started was checked and built
    "postgres",  # PostgreSQL is healthy
    "stopped",  # the old orchestrator has ended
    "started",  # the new one is healthy
    "down",  # nothing runs
    "dumped",  # the backup is written, under another name
    "checked",  # it was read back
    "named",  # it has its name
    "read",  # the file to restore is a whole backup
    "restored",  # its content is there
    "triggered",  # the orchestrator has a run
)

_done: set[str] = set()


def point(name: str) -> None:
    """Come to the point ``name``.

    Raises:
        StackError: it is to fail here.
        KeyboardInterrupt: it is to be interrupted here, and does not hold interrupts back.
    """
    action, _, where = os.environ.get("SWITCHYARD_FAULT", "").partition("@")
    if where != name or where in _done:
        return
    _done.add(where)
    if action not in ACTIONS:
        raise StackError(f"SWITCHYARD_FAULT asks for {action!r}.", f"It can be {', '.join(ACTIONS)}.", "unset SWITCHYARD_FAULT")
    if action == "error":
        raise StackError(f"A fault was asked for at the point {name}.", "SWITCHYARD_FAULT is set.", "unset SWITCHYARD_FAULT")
    os.kill(os.getpid(), SIGNALS[action])
