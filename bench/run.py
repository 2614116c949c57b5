"""An orchestrated run against a bare `dbt build` in the same container or environment, and where its time goes.

Both are seen from the outside, so the figures do not depend on how an orchestrator runs dbt. When dbt works is what PostgreSQL
writes down: from the first connection of the role dbt to the end of the last. The rest are the product's own timestamps.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Figure, ratio
from bench.stand import Stand
from stack.errors import StackError

TARGETS = {"dagster": 1.25, "prefect": 1.25, "airflow": 1.5}
PHASES = ("asking", "queue", "start", "loading", "dbt", "reporting")

# Epoch seconds of the newest run, as the product noted them: created, handed to a process, begun by it.
TIMESTAMPS = {
    "airflow": """
        select extract(epoch from r.queued_at), extract(epoch from t.queued_dttm), extract(epoch from t.start_date)
        from dag_run r join task_instance t using (dag_id, run_id)
        where t.task_display_name like 'dbt %' order by r.id desc limit 1""",
    "dagster": """
        select extract(epoch from r.create_timestamp),
            extract(epoch from min(e.timestamp) filter (where dagster_event_type = 'PIPELINE_STARTING')),
            extract(epoch from min(e.timestamp) filter (where dagster_event_type = 'STEP_START'))
        from runs r join event_logs e using (run_id) group by r.id order by r.id desc limit 1""",
    "prefect": """
        select extract(epoch from r.created), extract(epoch from min(s.timestamp) filter (where s.type = 'PENDING')),
            extract(epoch from min(s.timestamp) filter (where s.type = 'RUNNING'))
        from flow_run r join flow_run_state s on s.flow_run_id = r.id group by r.id order by r.created desc limit 1""",
}

# %n is the time as epoch seconds. dbt alone signs in as the role dbt, besides `invoke sql`.
LOG_CONNECTIONS = """
alter system set log_connections = on;
alter system set log_disconnections = on;
alter system set log_line_prefix = 'bench %n ';
select pg_reload_conf();
"""
CONNECTED = re.compile(r"bench ([\d.]+) .*\bconnection authorized: user=dbt ")
DISCONNECTED = re.compile(r"bench ([\d.]+) .*\bdisconnection: .*user=dbt ")


@dataclass(frozen=True)
class Timeline:
    """Epoch seconds of one run.

    Attributes:
        began: when the command was typed.
        marks: what came after it, in order: one moment at the end of each of `PHASES`.
    """

    began: float
    marks: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """From typing the command to the prompt."""
        return self.marks[-1] - self.began

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase; a product's clock may be off by a little, but no phase takes less than nothing."""
        found, at = {}, self.began
        for name, mark in zip(PHASES, self.marks, strict=True):
            found[name] = max(0.0, mark - at)
            at = max(at, mark)
        return found


def measure(stand: Stand, rounds: int, project: str = "") -> Iterator[Figure]:
    """Run after run, by turns with a bare `dbt build`, on each orchestrator; ``project`` is said after its name."""
    for name in stand.names():
        stand.on(name)
        stand.superuser(LOG_CONNECTIONS)
        bare(stand, name)  # leaves the parse for those that count
        orchestrated(stand, name)
        yield from compare(stand, name, rounds, project)


def compare(stand: Stand, name: str, rounds: int, project: str) -> Iterator[Figure]:
    """The figures of the active orchestrator."""
    builds, runs = [], []
    for _ in range(rounds):
        builds.append(bare(stand, name))
        runs.append(orchestrated(stand, name))
    label = f"{stand.orchestrators[name].title}{project}"
    yield ratio(f"{label}: invoke run / dbt build", [run.seconds for run in runs], builds, TARGETS.get(name))
    for phase in PHASES:
        yield ratio(f"{label}:   {phase} / dbt build", [run.phases[phase] for run in runs], builds)


def bare(stand: Stand, name: str, *args: str) -> float:
    """The seconds of a plain dbt command where the orchestrator runs dbt; without ``args``, of `dbt build`."""
    script = Path(__file__).with_name("bare_dbt.py").read_text(encoding="utf-8")
    return float(stand.execute(name, ["python", "-", *(args or ["build"])], script).splitlines()[-1])


def orchestrated(stand: Stand, name: str) -> Timeline:
    """The timeline of one `invoke run`.

    Raises:
        StackError: it failed.
    """
    lines: list[tuple[float, str]] = []
    began = time.time()
    with subprocess.Popen(
        stand.argv("run"), cwd=stand.folder, env=stand.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        for line in process.stdout:
            lines.append((time.time(), line.rstrip()))
    ended = time.time()
    if process.returncode:
        raise StackError(f"A run on {name} failed.", "\n".join(line for _, line in lines[-15:]), "invoke run")
    told = next(at for at, line in lines if "http://" in line)
    log = [line for line in stand.invoke("logs", "--service", "postgres", "--tail", "20000").splitlines() if "bench " in line]
    first = min(at for line in log if (match := CONNECTED.search(line)) and (at := float(match[1])) > began)
    last = max(float(match[1]) for line in log if (match := DISCONNECTED.search(line)))
    created, handed, begun = _timestamps(stand, name) or (told, first, first)
    return Timeline(began, (created, handed, begun, first, last, ended))


def _timestamps(stand: Stand, name: str) -> tuple[float, float, float] | None:
    """What the product noted of the newest run; None for one that this file does not know."""
    if name not in TIMESTAMPS:
        return None
    created, handed, begun = stand.superuser(TIMESTAMPS[name], stand.orchestrators[name].database).strip().split("|")
    return float(created), float(handed), float(begun)
