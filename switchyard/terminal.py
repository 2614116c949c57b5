"""A command and its terminal: the signals that end the command gently, and how it continues when the terminal is closed."""

from __future__ import annotations

import os
import signal
import sys

# The signals of Ctrl-C, of `kill`, and of a terminal that is closed.
INTERRUPTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def leave_terminal() -> None:
    """Redirect the standard streams of this process to the null device: its terminal is closed, and printing there would fail."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)


def leave_output() -> None:
    """Redirect standard output to the null device: nobody reads it any more, and printing there would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
