"""Points between the steps of a command, at which a test can have it fail, be interrupted, be killed or be paused.

``SWITCHYARD_FAULT=ACTION@POINT``, such as ``kill@stopped``, does that when the command first reaches the point.
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
    "prepared",  # all checks and builds before a start are done
    "postgres",  # PostgreSQL is healthy
    "stopped",  # the old orchestrator has ended
    "started",  # the new one is healthy
    "down",  # nothing runs
    "dumped",  # the backup is written, under a temporary name
    "checked",  # it was read back
    "named",  # it has its final name
    "read",  # the file to restore is a complete backup
    "restored",  # its content is there
    "triggered",  # the orchestrator has accepted a run
)

_done: set[str] = set()


def point(name: str) -> None:
    """Reach the point ``name``, and do what SWITCHYARD_FAULT sets for it.

    Raises:
        StackError: the action is ``error``, or unknown.
        KeyboardInterrupt: the action is ``interrupt``, and interrupts are not deferred.
    """
    action, _, where = os.environ.get("SWITCHYARD_FAULT", "").partition("@")
    if where != name or where in _done:
        return
    _done.add(where)
    if action not in ACTIONS:
        raise StackError(
            f"SWITCHYARD_FAULT has an unknown action, {action!r}.", f"It can be {', '.join(ACTIONS)}.", "unset SWITCHYARD_FAULT"
        )
    if action == "error":
        raise StackError(f"A fault was requested at the point {name}.", "SWITCHYARD_FAULT is set.", "unset SWITCHYARD_FAULT")
    os.kill(os.getpid(), SIGNALS[action])
