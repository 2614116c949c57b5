"""An orchestrated run compared with a bare `dbt build` in the same container or environment, and where its time goes.

Both are measured from the outside, so the figures do not depend on how an orchestrator runs dbt. The time in which dbt works comes from
PostgreSQL's log: from the first connection of the role dbt to the end of the last one. The other times are the product's own timestamps.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import memory
from bench.harness import Figure, ratio
from bench.rig import COMMAND_TIMEOUT_S, Rig, kill
from switchyard.errors import StackError

VENDOR = "vendor"  # the form of the integration that every product has
PHASES = ("asking", "queue", "start", "loading", "dbt", "reporting")

# Moves the warm dbt's socket away, so that `rundbt/bin/dbt` runs the plain dbt. Prints the socket's path if there was one.
NO_WARM_DBT = """
import os
path = os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'warm.sock')
if os.path.exists(path):
    os.replace(path, path + '.aside')
    print(path)
"""
# Moves it back: the server still listens on the renamed socket.
WARM_DBT = """
import os
path = os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'warm.sock')
os.replace(path + '.aside', path)
"""

# %n is the time in epoch seconds, %a the program's name. psql also signs in as the role dbt: for `invoke sql`, and every ten seconds for
# `invoke run`, which checks who waits for whose lock.
LOG_CONNECTIONS = """
alter system set log_connections = on;
alter system set log_disconnections = on;
alter system set log_line_prefix = 'bench %n %a ';
select pg_reload_conf();
"""
CONNECTED = re.compile(r"bench ([\d.]+) .*\bconnection authorized: user=dbt (?!.*\bapplication_name=psql\b)")
DISCONNECTED = re.compile(r"bench ([\d.]+) (?!psql ).*\bdisconnection: .*user=dbt ")
LINES = "1000000"  # the number of lines to read from the log


@dataclass(frozen=True)
class Timeline:
    """Epoch seconds of one run.

    Attributes:
        began: when the command was typed.
        marks: the end of each of `PHASES`, in order.
        processor: seconds of CPU time of all services and PostgreSQL.
    """

    began: float
    marks: tuple[float, ...]
    processor: float = 0.0

    @property
    def seconds(self) -> float:
        """From typing the command to the prompt."""
        return self.marks[-1] - self.began

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase; none is negative, even if a product's clock is off by a little."""
        found, at = {}, self.began
        for name, mark in zip(PHASES, self.marks, strict=True):
            found[name] = max(0.0, mark - at)
            at = max(at, mark)
        return found


@dataclass(frozen=True)
class Typed:
    """A command as a person sees it: epoch seconds of its start, its end and each line that it printed, and its exit code."""

    began: float
    ended: float
    code: int
    lines: tuple[tuple[float, str], ...]

    @property
    def seconds(self) -> float:
        """From typing it to the prompt."""
        return self.ended - self.began

    @property
    def text(self) -> str:
        """Its whole output."""
        return "\n".join(line for _, line in self.lines)


@dataclass(frozen=True)
class Bare:
    """A plain dbt command: its seconds, and its seconds of CPU time including PostgreSQL's."""

    seconds: float
    processor: float


def known(name: str) -> dict[str, Any]:
    """The targets and queries for an orchestrator, from its file in ``products/``; empty if it has none."""
    file = Path(__file__).with_name("products") / f"{name}.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.exists() else {}


def forms(name: str) -> list[str]:
    """The possible forms of an orchestrator's integration (INTEGRATION in ``.env``)."""
    return list(known(name).get("targets", {VENDOR: None}))


def measure(rig: Rig, rounds: int, project: str = "") -> Iterator[Figure]:
    """Measure runs, in turn with a bare `dbt build`, on each orchestrator; ``project`` is added to its name in the table."""
    rig.on(None)
    for name in rig.names():
        targets = known(name).get("targets_of_many" if project else "targets", {})
        for integration in forms(name):
            rig.invoke("up", "--orch", name, "--integration", integration)
            rig.superuser(LOG_CONNECTIONS)
            form = "" if integration == VENDOR else f", {integration}"
            label = f"{rig.orchestrators[name].title}{form}{project}"
            bare(rig, name)  # leaves the parse for the builds that count
            orchestrated(rig, name)
            yield from compare(rig, name, rounds, label, targets.get(integration))
            if rig.execute(name, ["python", "-c", NO_WARM_DBT]):  # Prefect's runner has none: dbt is a library in it
                yield from compare(rig, name, rounds, f"{label}, plain dbt")
            rig.on(None)  # at the next start, the warm dbt is back


def compare(rig: Rig, name: str, rounds: int, label: str, target: float | None = None) -> Iterator[Figure]:
    """The figures of the active orchestrator."""
    builds, runs = [], []
    for _ in range(rounds):
        builds.append(bare(rig, name))
        runs.append(orchestrated(rig, name))
    walls = [build.seconds for build in builds]
    yield ratio(f"{label}: invoke run / dbt build", [run.seconds for run in runs], walls, target)
    yield ratio(f"{label}:   processor time", [run.processor for run in runs], [build.processor for build in builds])
    for phase in PHASES:
        yield ratio(f"{label}:   {phase} / dbt build", [run.phases[phase] for run in runs], walls)


def bare(rig: Rig, name: str, *args: str) -> Bare:
    """A plain dbt command where the orchestrator runs dbt; without ``args``, `dbt build`."""
    script = Path(__file__).with_name("bare_dbt.py").read_text(encoding="utf-8")
    before = memory.processor(rig)
    seconds, own = map(float, rig.execute(name, ["python", "-", *(args or ["build"])], script).splitlines()[-1].split())
    # In a container, it is a process of the service; natively, it belongs to no service.
    return Bare(seconds, memory.processor(rig) - before + (own if rig.runtime == "native" else 0.0))


def orchestrated(rig: Rig, name: str, seconds: float | None = None) -> Timeline:
    """The timeline of one `invoke run`.

    Raises:
        StackError: it failed, dbt did not connect in it, or it had not ended after ``seconds``; in that case its command was killed, and
            the run may still continue.
    """
    before = memory.processor(rig)
    run = typed(rig, "run", seconds=seconds)
    processor = memory.processor(rig) - before
    if seconds is not None and run.seconds >= seconds:
        raise StackError(f"A run on {name} had not ended after {seconds / 60:.0f} minutes.", "", "invoke run --cancel")
    if run.code:
        raise StackError(f"A run on {name} failed.", "\n".join(run.text.splitlines()[-15:]), "invoke run")
    announced = next((at for at, line in run.lines if "http://" in line), run.ended)
    log = server_log(rig)
    connected = [at for line in log if (match := CONNECTED.search(line)) and (at := float(match[1])) > run.began]
    if not connected:
        raise StackError(f"dbt did not connect to PostgreSQL in a run on {name}.", "", "invoke dbt ls")
    first = min(connected)
    last = max((float(match[1]) for line in log if (match := DISCONNECTED.search(line))), default=first)
    created, handed, begun = _timestamps(rig, name) or (announced, first, first)
    return Timeline(run.began, (created, handed, begun, first, last, run.ended), processor)


def typed(rig: Rig, *args: str, seconds: float | None = None) -> Typed:
    """Type `invoke ARGS`, and record when it prints each line; it may fail.

    It is killed after ``seconds``, or `COMMAND_TIMEOUT_S`.
    """
    lines: list[tuple[float, str]] = []
    began = time.time()
    with subprocess.Popen(
        rig.argv(*args),
        cwd=rig.folder,
        env=rig.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        limit = threading.Timer(seconds or COMMAND_TIMEOUT_S, kill, [process.pid])
        limit.daemon = True
        limit.start()
        for line in process.stdout or ():
            lines.append((time.time(), line.rstrip()))
        limit.cancel()
    return Typed(began, time.time(), process.returncode, tuple(lines))


def server_log(rig: Rig) -> list[str]:
    """PostgreSQL's log since `LOG_CONNECTIONS`, with only the first line of each statement."""
    return [line for line in rig.invoke("logs", "--service", "postgres", "--tail", LINES).splitlines() if "bench " in line]


def _timestamps(rig: Rig, name: str) -> tuple[float, float, float] | None:
    """The product's timestamps of the newest run; None if there is no query for them."""
    database, query = rig.orchestrators[name].database, known(name).get("timestamps")
    if query is None or database is None:
        return None
    created, handed, begun = rig.superuser(query, database).strip().split("|")
    return float(created), float(handed), float(begun)
