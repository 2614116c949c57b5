"""What is locked for an orchestrator, and what a project needs of Python beyond that, for both runtimes.

The latter is its adapter, and its own requirements, in a lock of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from switchyard import certificates
from switchyard import project as projects
from switchyard.errors import BuildFailed
from switchyard.project import Project
from switchyard.runner import Runner
from switchyard.runtimes.runtime import OnLine
from switchyard.settings import Settings

UV = [sys.executable, "-m", "uv", "--no-progress"]
# The interpreter that runs Invoke. A virtual environment's own would tie the new ones to that one's folder.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable


def versions(root: Path, name: str) -> dict[str, str]:
    """The packages that an orchestrator's requirements name, with the versions of their locks."""
    found = {}
    for source in sorted((root / "docker" / name).glob("requirements*.in")):
        lock = source.with_suffix(".txt").read_text(encoding="utf-8")
        for package in re.findall(r"^([A-Za-z][\w.-]*)", source.read_text(encoding="utf-8"), re.M):
            if match := re.search(rf"^{re.escape(package)}==(\S+)", lock, re.M | re.I):
                found[package] = match[1]
    return found


def extra(settings: Settings, name: str, project: Project, runner: Runner, platform: list[str], on_line: OnLine) -> Path:
    """The lock of what the project needs of Python beyond the orchestrator's own; an empty file where that is nothing.

    Args:
        settings: the checkout's settings.
        name: the orchestrator's name.
        project: the project.
        runner: what starts programs.
        platform: options of uv for another platform than this one.
        on_line: called with what happens.

    Raises:
        BuildFailed: two packages do not go together; uv's own words say which.
    """
    folder = projects.build_folder(settings.root)
    lock = folder / f"requirements-{name}{'-docker' if platform else ''}.txt"
    if runner.dry:
        return lock
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not project.requirements:
        lock.write_text("", encoding="utf-8")
        return lock
    constraints = next(
        path
        for path in sorted((settings.root / "docker" / name).glob("requirements*.txt"))
        if projects.DBT_VERSION.search(path.read_text(encoding="utf-8"))
    )
    locked = constraints.read_text(encoding="utf-8")
    wanted = beyond(project.requirements, locked)
    stamp = f"# {digest(wanted, locked, sys.version, *platform)}"
    if lock.exists() and lock.read_text(encoding="utf-8").startswith(stamp):
        return lock
    on_line(f"locking dbt-{project.adapter} and the project's own requirements for {name}")
    source = folder / f"requirements-{name}.in"
    source.write_text(wanted, encoding="utf-8")
    argv = [*UV, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", *platform]
    argv += ["--python", PYTHON, "--constraints", str(constraints), "--output-file", str(lock.with_suffix(".new")), str(source)]
    done = trusting(runner, settings.root).follow(argv, lambda _: None, env={"UV_PYTHON_DOWNLOADS": "never"})
    if done.code:
        raise BuildFailed(
            f"The project's packages conflict with those of {name}.",
            done.stderr.strip(),
            f"Change {project.folder / 'requirements.txt'}, or run it in another orchestrator.",
        )
    new = lock.with_suffix(".new")
    new.write_text(stamp + "\n" + new.read_text(encoding="utf-8"), encoding="utf-8")
    os.replace(new, lock)
    return lock


def describe(settings: Settings, project: Project) -> str:
    """The project, and what is locked for it beyond the orchestrators' own locks; see `extra`."""
    if not project.requirements:
        return str(project)
    base = projects.build_folder(settings.root)
    texts = [path.read_text(encoding="utf-8") for path in base.glob("requirements-*.txt")]
    packages = sorted({package for text in texts for package in re.findall(r"^[\w.-]+==[\w.+!-]+", text, re.M)})
    return f"{project}; " + (f"locked for it in {base}: {', '.join(packages)}" if packages else "its packages are not locked yet")


def beyond(requirements: str, lock: str) -> str:
    """Those lines of ``requirements`` that name no package of ``lock``: of what an orchestrator needs, it has its own version."""
    known = {_normal(match[0]) for match in re.finditer(r"^[\w.-]+(?===)", lock, re.M)}
    lines = [line for line in requirements.splitlines() if not (match := re.match(r"[\w.-]+", line)) or _normal(match[0]) not in known]
    return "".join(f"{line}\n" for line in lines)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def trusting(runner: Runner, root: Path) -> Runner:
    """The runner, whose programs trust what is in ``certs/`` of the checkout ``root`` too."""
    return runner if runner.dry else replace(runner, env={**runner.env, **certificates.write_bundle(root)})


def digest(*parts: str) -> str:
    """Sixteen hex digits that change with any of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
