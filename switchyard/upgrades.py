"""`invoke upgrade-test`: the tests of the orchestrators with newer packages, in a copy of the checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import yaml

from bench.rig import CHECKOUT_HASH, Rig, rig
from switchyard import ROOT, console, pins
from switchyard.errors import BadUsage, RunFailed, StackError
from switchyard.orchestrators import NATIVE
from switchyard.runner import Runner, shown
from switchyard.runtimes.runtime import POSTGRES

NAME = f"switchyard-upgrade-{CHECKOUT_HASH}"
# They cover the life cycle of a stack and its runs, each orchestrator's view of a project, schedules, alerts, and the drop-in dbt.
SCENARIOS = (
    "tests/native/test_dagster_page.py",
    "tests/native/test_projects.py",
    "tests/native/test_switch.py",
    "tests/native/test_warm.py",
    "tests/small/test_airflow.py",
    "tests/small/test_alerts.py",
    "tests/small/test_flow_runs.py",
    "tests/small/test_runs.py",
    "tests/small/test_schedules.py",
)
INTERRUPTED = 2  # pytest's exit code after Ctrl-C
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.+!-]+)", re.M)
_WARNING = re.compile(r"\w*(?:Deprecat|RemovedIn)\w*Warning: .*")


def test(package: str, runner: Runner) -> None:
    """Lock newer packages in a copy of the checkout, run the orchestrators' tests on them, and print what breaks or is deprecated.

    Args:
        package: what to upgrade, as for `pins.make`; an empty text for all.
        runner: what starts uv.

    Raises:
        BadUsage: the packages of the tests are not installed, or there is no such package.
        BuildFailed: the versions contradict each other.
        RunFailed: a test fails.
    """
    if importlib.util.find_spec("pytest") is None:
        raise BadUsage("pytest is not installed.", "The scenarios are tests.", "pip install -r requirements-dev.txt")
    with rig("native", (), NAME) as made:
        before = versions(ROOT, committed)
        with console.Waiting("lock", "packages") as waiting:
            pins.make(made.folder, runner, package, waiting.detail)
        moved = moves(before, versions(made.folder))
        for lock, packages in moved.items():
            for name, (old, new) in packages.items():
                console.note(f"{lock}: {name} {old} → {new}")
        blocks = {name: made.orchestrators[name].native_block for name in made.possible()}
        names = [name for name, block in blocks.items() if any(f"docker/{name}/{lock}" in moved for lock in block.requirements)]
        if any(lock.startswith(f"docker/{POSTGRES}/") for lock in moved):  # which all of them use
            names = list(blocks)
        if not names:
            console.ok("Nothing newer for any orchestrator within versions.toml and the requirements*.in")
            return
        _commit(made.folder)
        chosen = selection(names, made.orchestrators)
        argv = [sys.executable, "-m", "pytest", "-v", *chosen, *SCENARIOS]
        code = runner.hand_over(argv, env={**os.environ, "CHAOS": "1"}, only_env=True, cwd=made.folder)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        for name in names:
            try:
                with console.Waiting("run", f"{made.orchestrators[name].title} for its deprecation warnings"):
                    found = _deprecations(made, name)
                for line in found or ["no deprecation warning"]:
                    console.advice(f"{made.orchestrators[name].title}: {line}")
            except StackError as error:
                console.advice(f"{made.orchestrators[name].title}: {error.what} {error.why}")
    if code:
        raise RunFailed(
            "A test fails with these versions.",
            "The output above shows the test, and the end of its services' logs.",
            f"CHAOS=1 {shown(['pytest', '-n0', *chosen, 'FILE'])}   (the same with the present locks)",
        )
    console.ok(f"The tests pass with these versions. To take them: invoke lock --upgrade {package}".rstrip())


def selection(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Options of pytest for the tests of some orchestrators, and those of no particular one; none if these are all orchestrators."""
    others = sorted({*known} - {*names})
    return ["-k", f"{' or '.join(names)} or not ({' or '.join(others)})"] if others else []


def current(path: Path) -> str:
    """The text of a file as it is now."""
    return path.read_text(encoding="utf-8")


def committed(path: Path) -> str:
    """The text of a file of the checkout in its last commit: an upgrade that is not committed yet is tested, too."""
    argv = ["git", "show", f"HEAD:./{path.name}"]
    found = subprocess.run(argv, cwd=path.parent, capture_output=True, text=True, encoding="utf-8")
    return found.stdout if found.returncode == 0 else current(path)


def versions(root: Path, read: Callable[[Path], str] = current) -> dict[str, dict[str, str]]:
    """The packages of each lock and their versions; a package has several where they depend on the platform or on Python.

    Args:
        root: the checkout.
        read: returns the text of a lock.
    """
    found: dict[str, dict[str, str]] = {}
    for source in pins.sources(root):
        lock = source.with_suffix(".txt")
        packages = found.setdefault(lock.relative_to(root).as_posix(), {})
        for name, version in _LOCKED.findall(read(lock)):
            packages[name] = f"{packages[name]}, {version}" if name in packages else version
    return found


def moves(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, tuple[str, str]]]:
    """The packages with a version in a lock that was not there, with all of the old and the new; no added or removed packages."""
    found = {
        lock: {
            name: (old[name], new) for name, new in packages.items() if name in old and not {*new.split(", ")} <= {*old[name].split(", ")}
        }
        for lock, packages in after.items()
        if (old := before.get(lock, {}))
    }
    return {lock: packages for lock, packages in found.items() if packages}


def deprecations(lines: Iterable[str]) -> list[str]:
    """The deprecation warnings in a log, each once, without what precedes the warning's name in its line."""
    return list(dict.fromkeys(match[0].strip() for line in lines if (match := _WARNING.search(line))))


def _commit(folder: Path) -> None:
    """Make the copy a git repository: the tests copy the files that git tracks."""
    author = ["-c", "user.name=upgrade-test", "-c", "user.email=upgrade-test@localhost"]
    for words in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "Newer packages"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def _deprecations(made: Rig, name: str) -> list[str]:
    """The deprecation warnings of an orchestrator's services and of a run, with all of Python's warnings enabled."""
    file = made.folder / "docker" / name / NATIVE
    block = yaml.safe_load(file.read_text(encoding="utf-8"))
    block.setdefault("environment", {})["PYTHONWARNINGS"] = "default"
    file.write_text(yaml.safe_dump(block, sort_keys=False), encoding="utf-8")
    made.on(None)
    made.invoke("up", "--orch", name)
    made.invoke("run")
    logs = (path.read_text(encoding="utf-8", errors="replace") for path in (made.folder / ".stack" / "native").rglob("*.log"))
    return deprecations(line for text in logs for line in text.splitlines())
