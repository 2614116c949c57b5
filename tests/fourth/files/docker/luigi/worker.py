"""``worker.py [--alive]``: execute the requested runs one after the other, each in its own `luigi` process; or check that a worker does.

A run is a folder in LUIGI_RUNS: the file ``job`` has the request, ``begun`` and ``ended`` show the progress, ``canceled`` ends the run.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rundbt import api, project_files

RUNS = Path(os.environ["LUIGI_RUNS"])
ALIVE = RUNS / ".alive"
SILENCE_S = 30  # without a sign of life, after which a worker counts as hung


def waiting() -> list[Path]:
    """The runs that have not begun, the oldest first."""
    return [file.parent for file in sorted(RUNS.glob("*/job"), key=os.path.getmtime) if not (file.parent / "begun").exists()]


def end(run: Path, code: int, message: str = "") -> None:
    """Record how a run has ended, in one step, because another process waits for the file."""
    (run / "ending").write_text(json.dumps({"code": code, "message": message}))
    (run / "ending").rename(run / "ended")


def work(run: Path) -> None:
    """Execute a run."""
    (run / "begun").touch()
    if (run / "canceled").exists():
        return end(run, 1)
    job, options = json.loads((run / "job").read_text())
    try:
        project_files.ensure_manifest()
    except project_files.ParseFailed as error:
        return end(run, 1, str(error))
    words = ["--job", job, "--options", json.dumps(options), "--run-id", run.name, "--scheduler-url", os.environ["LUIGI_URL"]]
    with open(run / "log", "wb") as log:
        luigi = subprocess.Popen([sys.executable, "-m", "luigi", "--module", "flow", "Dbt", *words], stdout=log, stderr=subprocess.STDOUT)
        while luigi.poll() is None:
            ALIVE.touch()
            time.sleep(0.2)
    lines = (run / "log").read_text(errors="replace").strip().splitlines()[-5:]
    return end(run, luigi.returncode, "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:] == ["--alive"]:
        sys.exit(not ALIVE.exists() or time.time() - ALIVE.stat().st_mtime > SILENCE_S)
    project_files.share_files()
    RUNS.mkdir(parents=True, exist_ok=True)
    api.wait_for_answer(f"{os.environ['LUIGI_URL']}/api/worker_list", 60, "Luigi's scheduler")
    for begun in RUNS.glob("*/begun"):
        if not (begun.parent / "ended").exists():
            end(begun.parent, 1, "The worker that it ran on was killed or stopped.")
    while True:
        ALIVE.touch()
        for run in waiting()[:1]:
            work(run)
        time.sleep(0.2)
