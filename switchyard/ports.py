"""TCP ports of 127.0.0.1: whether they are free, and which process holds them."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import psutil


def free(port: int) -> bool:
    """Whether nothing listens on ``port``. This connects, because binding can fail for other reasons too."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def unused() -> int:
    """A port that is free now."""
    return unused_ports(1)[0]


def unused_ports(count: int) -> list[int]:
    """``count`` different ports that are free now; separate calls could return the same port twice."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def holder(port: int) -> psutil.Process | None:
    """The process that listens on ``port``, or None where there is none or the system does not show it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        pass  # macOS shows it to the superuser alone
    return None
