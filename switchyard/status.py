"""`invoke status`: the state of the stack, for a person or as JSON."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from switchyard import console, pipeline, release
from switchyard import project as projects
from switchyard.errors import ApiUnusable, BadConfiguration
from switchyard.runtimes.runtime import WholeRuntime


def snapshot(runtime: WholeRuntime) -> dict[str, Any]:
    """What is up now, as the runtime reports it."""
    services = runtime.services()
    name = runtime.active(services)
    active = runtime.orchestrators[name] if name else None
    runs: list[pipeline.ActiveRun] = []
    if active and runtime.settings["WORKERS"]:
        with contextlib.suppress(ApiUnusable):
            runs = pipeline.active_runs(runtime)
    here = {service.id for service in services}
    return {
        "runtime": runtime.name,
        "orchestrator": name,
        "url": active.url(runtime.settings.values) if active else None,
        "dbt_project": ("baked" if any(service.baked for service in services) else "mounted") if active else None,
        "services": [
            {
                "name": service.name,
                "orchestrator": service.orchestrator or None,
                "state": service.state,
                "health": service.health or None,
                "container": service.container or None,
                "id": service.id,
                "status": service.status,
                "runs": [{"job": run.job, "run_id": run.run_id, "since": run.since} for run in runs if run.worker == service.id],
            }
            for service in services
        ],
        "elsewhere": [  # on workers of other machines
            {"job": run.job, "run_id": run.run_id, "since": run.since, "worker": run.worker}
            for run in runs
            if run.worker and run.worker not in here
        ],
        "beside": snapshot(runtime.beside) if runtime.beside else None,
    }


def print_json(runtime: WholeRuntime) -> None:
    """Print `snapshot` as one JSON object."""
    console.say(json.dumps(snapshot(runtime), indent=2))


def print_table(runtime: WholeRuntime) -> None:
    """Print `snapshot` for a person, with what to type next; for both runtimes where both are up."""
    now = snapshot(runtime)
    _print(runtime, now)
    if runtime.beside:
        console.say()
        _print(runtime.beside, now["beside"])


def _print(runtime: WholeRuntime, now: dict[str, Any]) -> None:
    active = runtime.orchestrators.get(now["orchestrator"])
    if not now["services"]:
        console.say("Nothing is up. Next: invoke up")
        return
    if active:
        where = (
            f"{projects.folder(runtime.settings)}, {runtime.project_place}" if now["dbt_project"] == "mounted" else "the image's own copy"
        )
        where += f", release {runtime.settings[release.TAG_KEY]}" if runtime.settings["RELEASE_FILE"] else ""
        database: str | None
        try:
            database = runtime.project.database if runtime.project.shared else None
        except BadConfiguration:  # the project cannot be read any more; what runs is still shown
            database = "of the dbt project"
        console.facts([*active.access(runtime.settings.values, database), ("dbt project", where), ("Runtime", runtime.name)])
    else:
        console.say("  No orchestrator is active. Next: invoke up")
    console.say()
    count = Counter(service["name"] for service in now["services"])
    console.table(
        ("SERVICE", "STATE", "HEALTH", "STATUS", "RUNS")[: 5 if runtime.settings["WORKERS"] else 4],
        [
            (
                s["name"] + (f" {s['container'].rpartition('-')[2]}" if count[s["name"]] > 1 else ""),
                s["state"],
                s["health"] or "-",
                re.sub(r" \((health: )?\w+\)$", "", s["status"]),
                *([", ".join(map(_since, s["runs"]))] if runtime.settings["WORKERS"] else []),
            )
            for s in now["services"]
        ],
    )
    for run in now["elsewhere"]:
        console.say(f"  On another machine: {_since(run)}, worker {run['worker']}")


def _since(run: Mapping[str, str]) -> str:
    began = datetime.fromisoformat(run["since"].replace("Z", "+00:00")).astimezone() if run["since"] else None
    return run["job"] + (f" since {began:%H:%M:%S}" if began else "")
