"""``python -m bench``, the same as ``invoke bench``: measure, print a table, and write the figures as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path

from bench import commands, harness, images, local, many, memory, run, scale, start, switch
from bench.harness import HEADER, Figure, as_json, row
from bench.rig import RUNTIMES, possible, rig, where
from switchyard import ROOT, console, orchestrators
from switchyard.errors import BadUsage, StackError

MEASUREMENTS = {
    "commands": commands.measure,
    "run": run.measure,
    "switch": switch.measure,
    "start": start.measure,
    "images": images.measure,
    "memory": memory.measure,
    "many": many.measure,
    "local": local.measure,
    "scale": scale.measure,
}
ROUNDS = 5


def main(only: str, orch: str, rounds: int, runtime: str, path: str | None) -> None:
    """Measure on a separate stack, print each row as soon as it is measured, and write all of them to a file.

    Args:
        only: names in `MEASUREMENTS`, separated by commas; empty for all.
        orch: orchestrators, separated by commas; empty for all.
        rounds: how often everything is measured.
        runtime: ``docker``, ``native``, or both, separated by a comma; empty for all that are available here.
        path: the JSON file; None for one in ``bench/results``.

    Raises:
        BadUsage: there is no such measurement or runtime, or the file exists already.
        StackError: something that is measured fails.
    """
    picked = harness.picked(only, MEASUREMENTS, "measurement", "invoke bench --only") or list(MEASUREMENTS)
    names = harness.picked(orch, orchestrators.load_all(ROOT), "orchestrator", "invoke bench --orch")
    runtimes = harness.picked(runtime, RUNTIMES, "runtime", "invoke bench --runtime") or possible()
    now = datetime.now(timezone.utc)
    target = Path(path) if path else ROOT / "bench" / "results" / f"{now:%Y%m%dT%H%M%SZ}.json"
    if target.exists():
        raise BadUsage(f"{target} already exists.", "Figures are never overwritten.", "invoke bench --out OTHER.json")
    console.note("This uses its own stack, in a copy of this checkout, and removes it afterwards; yours is not touched.")
    console.note("Other programs on this machine make the spread wider.")
    found: dict[str, dict[str, list[Figure]]] = {}
    try:
        for kind in runtimes:
            with rig(kind, names) as made:
                for name in picked:
                    console.say(f"\n{name} ({kind})")
                    for figure in MEASUREMENTS[name](made, rounds):
                        found.setdefault(kind, {}).setdefault(name, []).append(figure)
                        console.note(f"  {' | '.join(filter(None, row(figure)))}")
    finally:
        if found:
            _report(found, target, now, rounds)


def _report(found: dict[str, dict[str, list[Figure]]], target: Path, now: datetime, rounds: int) -> None:
    for kind, measurements in found.items():
        console.say(f"\n{kind}")
        console.table(HEADER, [row(figure) for figures in measurements.values() for figure in figures])
    content = {
        "time": now.isoformat(timespec="seconds"),
        **where(next(iter(found))),
        "rounds": rounds,
        "figures": {
            kind: {name: [as_json(figure) for figure in figures] for name, figures in measurements.items()}
            for kind, measurements in found.items()
        },
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.ok(f"Written to {target}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench", description="What orchestration costs; see docs/benchmark.md.")
    parser.add_argument("--only", default="", help=f"some of {', '.join(MEASUREMENTS)}, separated by commas; without it: all")
    parser.add_argument("--orch", default="", help="some of the orchestrators, separated by commas; without it: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often everything is measured (%(default)s)")
    parser.add_argument("--runtime", default="", help="docker or native; without it: both, if they are available")
    parser.add_argument("--out", help="the JSON file; without it: bench/results/<time>.json")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM also cleans up
    try:
        main(asked.only, asked.orch, asked.rounds, asked.runtime, asked.out)
    except StackError as error:
        console.say(str(error))
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
