"""TCP ports of 127.0.0.1: whether they are free, and who holds them."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import psutil


def free(port: int) -> bool:
    """Whether nobody listens on ``port``; asked by connecting, since binding is refused for other reasons too."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def unused() -> int:
    """A port that nobody holds at this moment."""
    return unused_ports(1)[0]


def unused_ports(count: int) -> list[int]:
    """So many different ports that nobody holds at this moment; one that is asked for alone may be the one before again."""
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
