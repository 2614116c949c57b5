"""TCP ports of 127.0.0.1: whether they are free, and which process holds them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

import psutil

RANGE = range(20000, 32768)  # below the ports of outgoing connections: from 32768 on Linux, from 49152 on macOS and Windows


def free(port: int) -> bool:
    """Whether nothing listens on ``port``. This connects, because binding can fail for other reasons too."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def unused() -> int:
    """A port that is free now."""
    return unused_ports(1)[0]


def unused_ports(count: int) -> list[int]:
    """``count`` different ports that are free now; separate calls could return the same port twice.

    A port from the system (`bind` to port 0) is one that any outgoing connection can take before a service listens on it.
    """
    with ExitStack() as held:
        found: list[int] = []
        for port in random.sample(RANGE, len(RANGE)):
            if len(found) == count:
                break
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
        return found


def holder(port: int) -> psutil.Process | None:
    """The process that listens on ``port``, or None where there is none or the system does not show it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        pass  # macOS shows it to the superuser alone
    return None
