"""The Python packages that are locked for an orchestrator, and those that a project needs beyond them, for both runtimes.

The latter are its adapter and its own requirements. They have a separate lock.
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
# The interpreter that runs Invoke. The one in a virtual environment would tie new environments to that folder.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable


def versions(root: Path, name: str) -> dict[str, str]:
    """The packages in an orchestrator's requirements, with their versions in the locks."""
    found = {}
    for source in sorted((root / "docker" / name).glob("requirements*.in")):
        lock = source.with_suffix(".txt").read_text(encoding="utf-8")
        for package in re.findall(r"^([A-Za-z][\w.-]*)", source.read_text(encoding="utf-8"), re.M):
            if match := re.search(rf"^{re.escape(package)}==(\S+)", lock, re.M | re.I):
                found[package] = match[1]
    return found


def extra(settings: Settings, name: str, project: Project, runner: Runner, platform: list[str], on_line: OnLine) -> Path:
    """The lock of the packages that the project needs beyond the orchestrator's own; an empty file where there are none.

    Args:
        settings: the checkout's settings.
        name: the orchestrator's name.
        project: the project.
        runner: what starts programs.
        platform: options for uv, for a platform other than this one.
        on_line: called with each step.

    Raises:
        BuildFailed: two packages conflict; with uv's message.
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
    """The project, and the packages that are locked for it in addition; see `extra`."""
    if not project.requirements:
        return str(project)
    base = projects.build_folder(settings.root)
    texts = [path.read_text(encoding="utf-8") for path in base.glob("requirements-*.txt")]
    packages = sorted({package for text in texts for package in re.findall(r"^[\w.-]+==[\w.+!-]+", text, re.M)})
    return f"{project}; " + (f"locked for it in {base}: {', '.join(packages)}" if packages else "its packages are not locked yet")


def beyond(requirements: str, lock: str) -> str:
    """The lines of ``requirements`` without a package of ``lock``: the orchestrator keeps its own version of those."""
    known = {normal(match[0]) for match in re.finditer(r"^[\w.-]+(?===)", lock, re.M)}
    lines = [line for line in requirements.splitlines() if not (match := re.match(r"[\w.-]+", line)) or normal(match[0]) not in known]
    return "".join(f"{line}\n" for line in lines)


def normal(name: str) -> str:
    """A package's name as locks have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def trusting(runner: Runner, root: Path) -> Runner:
    """The runner, with the certificates in ``certs/`` of the checkout ``root`` trusted by its programs too."""
    return runner if runner.dry else replace(runner, env={**runner.env, **certificates.write_bundle(root)})


def digest(*parts: str) -> str:
    """Sixteen hex digits that change with any of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
