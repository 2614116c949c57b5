"""Memory and CPU time of each orchestrator and PostgreSQL, while nothing runs after one run of the pipeline, and at most."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeVar

import psutil

from bench.harness import Figure
from bench.rig import Rig
from switchyard import checks
from switchyard.errors import StackError
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import POSTGRES

T = TypeVar("T")

WINDOW_S = 60  # seconds, for all rounds together
SETTLING_S = 20  # seconds after a run, until workers and connections that are not kept have ended
POLL_S = 0.5  # seconds between two samples of the peak
ENDED = "A service ended while it was measured."

# For version 2 of control groups, and for version 1.
CPU = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage"
MEMORY = """
cd /sys/fs/cgroup
cat memory.current memory.stat 2>/dev/null || cat memory/memory.usage_in_bytes memory/memory.stat
"""
# Answers each line with both, in one process: a new process for each sample would distort the measurement.
LOOK = f"while read -r line; do {MEMORY} echo --; {CPU}; echo ==; done"


class Usage(NamedTuple):
    """What a service uses: MiB of memory, and seconds of CPU time since it was started."""

    memory: float
    processor: float


class Look(NamedTuple):
    """One sample of all services.

    Attributes:
        began: before the first service was asked, in seconds of a clock.
        ended: after the last CPU time was read.
        usage: what each service uses, by name.
    """

    began: float
    ended: float
    usage: dict[str, Usage]


class Peak(NamedTuple):
    """The highest use.

    Attributes:
        memory: MiB by service, at the moment when their sum was highest.
        load: % of a core by service, between the two samples with the highest sum.
    """

    memory: dict[str, float]
    load: dict[str, float]


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """Measure memory in MiB, and CPU time as a share of one core."""
    for name in rig.names():
        rig.on(name)
        rig.invoke("run")
        time.sleep(SETTLING_S)
        found = [idle(rig, WINDOW_S / rounds) for _ in range(rounds)]
        title = rig.orchestrators[name].title
        yield Figure(f"{title}: memory", tuple(sum(one.memory for one in each.values()) for each in found), unit="MiB")
        yield Figure(f"{title}: idle CPU", tuple(sum(one.processor for one in each.values()) for each in found), unit="% of a core")


def idle(rig: Rig, seconds: float) -> dict[str, Usage]:
    """MiB of memory, and the CPU time in % of a core, of each service and of PostgreSQL over ``seconds``."""
    with looking(rig) as look:
        before = look()
        time.sleep(seconds)
        after = look()
    load = loads(before, after)
    return {name: Usage(one.memory, load[name]) for name, one in after.usage.items()}


def at_most(rig: Rig, action: Callable[[], T]) -> tuple[T, Peak]:
    """Do something, and measure the highest use meanwhile."""
    with looking(rig) as look, ThreadPoolExecutor(1) as pool:
        looks = [look()]
        done = pool.submit(action)
        ended = False
        while not ended:
            ended = bool(wait([done], POLL_S).done)
            looks.append(look())
        return done.result(), peak(looks)


def peak(looks: list[Look]) -> Peak:
    """The highest use in several samples."""
    memory = max(({name: one.memory for name, one in look.usage.items()} for look in looks), key=lambda each: sum(each.values()))
    return Peak(memory, max((loads(*both) for both in pairwise(looks)), key=lambda each: sum(each.values())))


def loads(before: Look, after: Look) -> dict[str, float]:
    """The CPU time between two samples in % of a core, of each service that is in both."""
    seconds = after.ended - before.began  # services are read one after another: with less, their sum could exceed what the machine has
    return {
        name: 100 * (one.processor - before.usage[name].processor) / seconds for name, one in after.usage.items() if name in before.usage
    }


@contextmanager
def looking(rig: Rig) -> Iterator[Callable[[], Look]]:
    """A function that samples the use of each service and PostgreSQL; shared memory counts once (Linux).

    Raises:
        StackError: a service has ended.
    """
    driver = rig.driver
    if isinstance(driver, Native):
        yield partial(_look, driver)
        return
    try:
        with ExitStack() as opened:
            open_ = {
                service.name: opened.enter_context(
                    subprocess.Popen(
                        ["docker", "exec", "-i", service.container, "sh", "-c", LOOK],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
                    )
                )
                for service in driver.services()
            }  # fmt: skip
            yield partial(answers, open_)
    except BrokenPipeError:
        raise StackError(ENDED) from None


def cpu_seconds(text: str) -> float:
    """The CPU time of a container, from its control group."""
    if match := re.search(r"^usage_usec (\d+)", text, re.M):
        return int(match[1]) / 1e6
    return int(text) / 1e9


def mebibytes(text: str) -> float:
    """The memory of a container, from its control group, without cached files that the system can drop, as in `docker stats`."""
    used, _, rest = text.strip().partition("\n")
    names = ("total_inactive_file", "inactive_file")  # version 1 has both, and only the first one includes child groups; 2 has the second
    forgotten = next((int(match[1]) for name in names if (match := re.search(rf"^{name} (\d+)", rest, re.M))), 0)
    return (int(used) - forgotten) / checks.MIB


def processor(rig: Rig) -> float:
    """The CPU time, in seconds, of all services and PostgreSQL since their start, including processes in them that have ended."""
    if isinstance(rig.driver, Native):
        return sum(_total(found, _processor) for found in processes(rig.driver).values())
    containers = [service.container for service in rig.driver.services()]
    return sum(cpu_seconds(rig.command(["docker", "exec", container, "sh", "-c", CPU])) for container in containers)


def _look(native: Native) -> Look:
    began = time.monotonic()
    found = processes(native)
    processor = {name: _total(each, _processor) for name, each in found.items()}
    ended = time.monotonic()
    return Look(began, ended, {name: Usage(_total(each, _own_memory) / checks.MIB, processor[name]) for name, each in found.items()})


def answers(lookers: Mapping[str, subprocess.Popen[str]]) -> Look:
    """The answers of `LOOK` processes, which are asked all at once, by the service's name.

    Raises:
        StackError: one has ended.
    """
    began = time.monotonic()
    for looker in lookers.values():
        assert looker.stdin
        looker.stdin.write("\n")
    usage = {name: _answer(looker) for name, looker in lookers.items()}
    return Look(began, time.monotonic(), usage)


def _answer(looker: subprocess.Popen[str]) -> Usage:
    assert looker.stdout
    output = ""
    while not output.endswith("==\n"):
        line = looker.stdout.readline()
        if not line:
            raise StackError(ENDED)
        output += line
    memory, _, processor = output.removesuffix("==\n").partition("--\n")
    return Usage(mebibytes(memory), cpu_seconds(processor))


def _processor(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:4])


def _own_memory(process: psutil.Process) -> int:
    try:
        info = process.memory_full_info()
    except psutil.AccessDenied:  # on macOS, for every other process
        return int(process.memory_info().rss)
    return int(getattr(info, "pss", info.uss))


def _total(processes: list[psutil.Process], ask: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended since
            total += ask(process)
    return total


def processes(native: Native) -> dict[str, list[psutil.Process]]:
    """The processes of each service and of PostgreSQL, by its name."""
    found = {}
    for record in native.processes.records():
        own = {process.pid: process for process in native.processes.members(record)}
        if root := native.processes.root(record):
            # Include processes that have ended but that their parent has not collected yet: their CPU time is counted nowhere else.
            with suppress(psutil.NoSuchProcess):
                own |= {process.pid: process for process in root.children(recursive=True)}
        found[record.service] = list(own.values())
    server = native.postgres.server()
    return {**found, **({POSTGRES: [server, *server.children(recursive=True)]} if server else {})}
