"""TCP ports of localhost: whether they are free, and which process holds them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from functools import cache

import psutil

RANGE = range(20000, 32768)  # below the ports of outgoing connections: from 32768 on Linux, from 49152 on macOS and Windows


@cache
def _addresses() -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of localhost; ::1 only where there is IPv6. Services listen on the first, and a browser may ask the other first."""
    found = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.bind((address, 0))
            found.append((family, address))
    return found


def free(port: int) -> bool:
    """Whether nothing listens on ``port``. This connects, because binding can fail for other reasons too."""
    for family, address in _addresses():
        with socket.socket(family) as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                return False
    return True


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
                for family, address in _addresses():
                    held.enter_context(socket.socket(family)).bind((address, port))
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
