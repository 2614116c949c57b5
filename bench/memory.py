"""What each orchestrator takes while nothing happens, after it has run the pipeline once; PostgreSQL included."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from bench.harness import Figure
from bench.stand import Stand
from stack import checks
from stack.native import Native

WINDOW = 60  # seconds, of all rounds together
SETTLING = 20  # seconds after a run, in which workers and connections that are not kept go away

# Of the control groups' second version, and of their first.
CPU = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage"
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def measure(stand: Stand, rounds: int) -> Iterator[Figure]:
    """Memory in MiB, and processor time as a share of one core."""
    for name in stand.names():
        stand.on(name)
        stand.invoke("run")
        time.sleep(SETTLING)
        found = [idle(stand, WINDOW / rounds) for _ in range(rounds)]
        title = stand.orchestrators[name].title
        yield Figure(f"{title}: memory", tuple(memory for memory, _ in found), unit="MiB")
        yield Figure(f"{title}: idle CPU", tuple(load for _, load in found), unit="% of a core")


def idle(stand: Stand, seconds: float) -> tuple[float, float]:
    """MiB of memory, and the processor time in % of a core, of all services and PostgreSQL over so many ``seconds``."""
    began, before = time.monotonic(), processor(stand)
    time.sleep(seconds)
    return _memory(stand), 100 * (processor(stand) - before) / (time.monotonic() - began)


def cpu_seconds(text: str) -> float:
    """The processor time of a container, from its control group."""
    if match := re.search(r"^usage_usec (\d+)", text, re.M):
        return int(match[1]) / 1e6
    return int(text) / 1e9


def mebibytes(text: str) -> float:
    """What `docker stats` says of memory, such as ``512.5MiB / 1GiB``."""
    match = re.match(r"([\d.]+)(\w+)", text)
    if match is None:
        raise ValueError(f"`docker stats` shows no memory: {text!r}")
    return float(match[1]) * UNITS[match[2]] / checks.MIB


def processor(stand: Stand) -> float:
    """The processor time, in seconds, of all services and PostgreSQL, with what has ended in them, since they were started."""
    if isinstance(stand.driver, Native):
        return _total(stand.driver, lambda process: sum(process.cpu_times()[:4]))
    containers = [service.container for service in stand.driver.services()]
    return sum(cpu_seconds(stand.command(["docker", "exec", container, "sh", "-c", CPU])) for container in containers)


def _memory(stand: Stand) -> float:
    """Memory that several processes share is counted once, where the system shows it."""
    if isinstance(stand.driver, Native):
        return _total(stand.driver, _own_memory) / checks.MIB
    containers = [service.container for service in stand.driver.services()]
    lines = stand.command(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *containers]).splitlines()
    return sum(map(mebibytes, lines))


def _own_memory(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return getattr(info, "pss", info.uss)


def _total(native: Native, ask: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in _processes(native):
        with suppress(psutil.NoSuchProcess):  # it has ended since
            total += ask(process)
    return total


def _processes(native: Native) -> list[psutil.Process]:
    server = native.postgres.server()
    records = native.processes.records()
    own = {process.pid: process for record in records for process in native.processes.members(record)}
    for root in filter(None, map(native.processes.root, records)):
        # Those too that have ended and that their parent did not collect yet: nobody else has their processor time.
        own |= {process.pid: process for process in root.children(recursive=True)}
    return [*own.values(), *([server, *server.children(recursive=True)] if server else [])]
