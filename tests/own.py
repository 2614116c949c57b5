"""A user's own project, in either runtime: the bodies of tests in `tests/docker` and `tests/native`."""

from __future__ import annotations

import json
import re
import shutil
import signal
import urllib.request
from pathlib import Path

from . import runs
from .interruptions import read_until, typed
from .stacks import ROOT, Stack

NAMES = ("duck", "duck_shared", "plain")
# The result of each node of tests/projects/duck, in every orchestrator: status, rows, and whether there is a message.
DUCK = {
    "seed.ducks.raw_ducks": ("success", 3, False),
    "model.ducks.ducks": ("success", None, False),
    "model.ducks.flock": ("success", None, False),
    "test.ducks.unique_ducks_id": ("pass", 0, False),
    "test.ducks.not_null_ducks_id": ("pass", 0, False),
    "test.ducks.accepted_values_ducks_name__DONALD___DAISY___HUEY_": ("pass", 0, False),
}


def place(folder: Path) -> Path:
    """Copy the projects into ``folder``, as a user has them, with an ``.env``. No command may write to any of their files."""
    for name in NAMES:
        shutil.copytree(ROOT / "tests" / "projects" / name, folder / name)
    (folder / "duck" / ".env").write_text('POND=Village "north" $hore\nNOT_ASKED_FOR=1\n')
    return folder


def listing(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Every file below the folder, with its time and content."""
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def plain_names(nodes: dict[str, tuple]) -> dict[str, tuple]:
    """The nodes by id, without the hash at the end of a generic test's id."""
    return {re.sub(r"\.[0-9a-f]{10}$", "", unique_id): what for unique_id, what in nodes.items()}


def show(stack: Stack, query: str, *options: str) -> list[dict]:
    """The rows of a query, from `invoke dbt show`; without ``options``, five at most."""
    out = stack.invoke("dbt", "--quiet", "--log-format", "json", "show", "--output", "json", *options, "--inline", query).stdout
    found = [json.loads(line)["data"] for line in out.splitlines() if '"ShowNode"' in line or '"preview"' in line]
    return json.loads(found[-1]["preview"])


def docs_are_served(stack: Stack) -> None:
    """`invoke docs` shows the project's models on this machine until Ctrl-C."""
    with typed(stack, "docs") as command:
        try:
            address = re.search(r"http://localhost:(\d+)/", read_until(command, "http://localhost:"))
            page = urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/").read().decode()
            assert "model.ducks.flock" in page
        finally:
            command.send_signal(signal.SIGINT)
        command.communicate(timeout=30)
    assert command.returncode == 0


def duck_runs(stack: Stack, name: str) -> None:
    """A project on DuckDB runs in one orchestrator, with a package from outside its folder, its own variable and its own jobs."""
    stack.on(name)
    run = runs.record(stack, "nightly")
    assert run["state"] == "success", run
    assert plain_names(runs.outcome(run["nodes"])) == DUCK
    again = runs.record(stack, "weights")
    assert set(runs.outcome(again["nodes"])) == {"model.ducks.flock"}, again
    (row,) = show(stack, "select f.*, d.pond, d.name from {{ ref('flock') }} f, {{ ref('ducks') }} d where d.id = 1")
    assert row == {"ducks": 3, "grams": 9000, "owner": "nobody", "pond": 'Village "north" $hore', "name": "DONALD!"}
    stack.invoke("run", "--job", "weights", "--vars", "{times: 5}")
    assert show(stack, "select grams from {{ ref('flock') }}") == [{"grams": 15000}]
