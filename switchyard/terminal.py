"""What a command does with its terminal: the signals that end it gently, and how it leaves a terminal that is closed."""

from __future__ import annotations

import os
import signal
import sys

# What ends a command gently: Ctrl-C, `kill`, a terminal that is closed.
INTERRUPTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def leave_terminal() -> None:
    """Have this process read nothing and print to nowhere: its terminal is closed, and printing there would fail."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)


def leave_output() -> None:
    """Have this process print to nowhere: nobody reads its standard output any more, and printing there would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
