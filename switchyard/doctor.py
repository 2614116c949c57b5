"""`invoke doctor`: every check that works without a start, one line each: ok, or what to do. It continues after a problem."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rundbt import dbt_internals
from switchyard import checks, console, diagnosis, orchestrators, settings
from switchyard.checks import Check
from switchyard.errors import BadConfiguration, StackError, name_the_shell
from switchyard.fingerprints import base_images, check_base_images
from switchyard.orchestrators import Orchestrator
from switchyard.runner import Runner
from switchyard.runtimes.choice import choose
from switchyard.runtimes.docker.runtime import Docker
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import Runtime
from switchyard.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what was checked, in a few words.
        state: ok, advice or failed.
        text: the result, in one line.
        next: what to type, if anything.
        code: the exit code if it failed, otherwise 0.
    """

    check: str
    state: str
    text: str
    next: str = ""
    code: int = 0


def examine(root: Path, environ: Mapping[str, str], asked: str | None, make_runner: Callable[[Settings], Runner], as_json: bool) -> int:
    """Run every check, and print a line for each, or all of them as one JSON object.

    Args:
        root: the checkout.
        environ: the caller's environment.
        asked: the value of ``--runtime``, or None.
        make_runner: what starts programs, given the settings.
        as_json: whether to print JSON.

    Returns:
        The exit code of the first check that failed, or 0; advice is not a failure.
    """
    found: list[Finding] = []
    show = {"ok": console.ok, "advice": console.advice, "failed": console.fail}
    for check in _checks(root, environ, asked, make_runner):
        finding = _finding(check, environ)
        found.append(finding)
        if not as_json:
            show[finding.state](f"{finding.check}: {finding.text}" + (f" Next: {finding.next}" if finding.next else ""))
    code = next((finding.code for finding in found if finding.code), 0)
    if as_json:
        console.say(json.dumps({"system": platform.platform(), "code": code, "checks": [asdict(finding) for finding in found]}, indent=2))
    return code


def _finding(check: Check, environ: Mapping[str, str]) -> Finding:
    try:
        return Finding(check.what, "ok", " ".join(check.run().split()))
    except StackError as error:
        trouble = error
    except OSError as error:
        refused = diagnosis.refusal(error)
        if refused is None:
            raise
        trouble = refused
    name_the_shell(trouble, environ)
    text = " ".join(f"{trouble.what} {trouble.why}".split())
    state, code = ("advice", 0) if check.advice else ("failed", trouble.code)
    return Finding(check.what, state, text, " ".join(trouble.next.split()), code)


def _checks(root: Path, environ: Mapping[str, str], asked: str | None, make_runner: Callable[[Settings], Runner]) -> Iterator[Check]:
    yield Check("Python", _python)
    yield Check("Packages", partial(_packages, root), advice=True)
    yield Check("Terminal", _terminal)
    yield Check("Line ends", partial(checks.windows_line_ends, root), advice=True)
    yield Check(".env", partial(_env, root, environ))
    if (root / ".env").is_file():
        yield Check(".env", partial(_private, root), advice=True)
    known: dict[str, Orchestrator] = {}
    for file in orchestrators.files(root):
        yield Check(file.relative_to(root).as_posix(), partial(_compose_file, root, file, known))
    yield Check("dbt", partial(_dbt, root), advice=True)
    try:
        loaded, _ = settings.load(root, environ, write=False)
        yield Check("Base images", partial(check_base_images, loaded), advice=True)
    except BadConfiguration:
        loaded = settings.defaults(root, environ)  # the other checks still run
    runner = make_runner(loaded)
    docker, native = Docker(loaded, known, runner), Native(loaded, known, runner, environ)
    wanted = loaded["RUNTIME"] if asked is None else asked
    if wanted != native.name:
        yield Check("Docker", partial(_engine, docker), advice=True)
    yield Check("Runtime", partial(_runtime, docker, native, asked))
    runtime: Runtime
    try:
        runtime, _ = choose(docker, native, asked)
    except StackError:  # the other checks run on this runtime
        runtime = native
    targets = [target for target in known.values() if not runtime.unsupported(target)]
    yield from runtime.checks.of(targets)


def _engine(docker: Docker) -> str:
    return f"the engine {docker.require()} answers"


def _runtime(docker: Docker, native: Native, asked: str | None) -> str:
    """The runtime that `invoke up` would use; fails if that would."""
    found, reason = choose(docker, native, asked, starting=True)
    return f"{found.name}. {reason}" if reason else found.name


def _dbt(root: Path) -> str:
    """The dbt version of each lock; see docs/dbt.md."""
    found: dict[str, list[str]] = {}
    for lock in sorted((root / "docker").glob("*/requirements*.txt")):
        for version in re.findall(r"^dbt-core==(\S+)", lock.read_text(encoding="utf-8"), re.M):
            found.setdefault(version, []).append(lock.parent.name)
    odd = [version for version in found if not dbt_internals.is_known(version)]
    if odd:
        raise BadConfiguration(
            f"The locks have dbt-core {', '.join(odd)}.",
            "The warm dbt does not support it, so runs take longer.",
            "see docs/dbt.md",
        )
    return ", ".join(f"{version} ({', '.join(names)})" for version, names in found.items())


def _python() -> str:
    return f"{platform.python_version()} in {sys.prefix}"


def _packages(root: Path) -> str:
    """Compare the installed packages with the lock, whose lines are ``name==version`` and perhaps a marker."""
    locked = re.findall(r"^([\w.-]+)==([\w.]+)", (root / "requirements.txt").read_text(encoding="utf-8"), re.M)
    other = [f"{name} {version}" for name, version in locked if _installed(name) not in (version, None)]
    if other:
        raise StackError(f"Not installed as locked: {', '.join(other)}.", "", f"{sys.executable} -m pip install -r requirements.txt")
    return "as locked"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None  # for another platform: without a package that this one needs, the command would not have started


def _terminal() -> str:
    return "UTF-8" if console.unicode(sys.stdout) else "no UTF-8, so signs are in ASCII"


def _env(root: Path, environ: Mapping[str, str]) -> str:
    settings.load(root, environ, write=False)
    return "valid" if (root / ".env").exists() else "none yet; the next command writes it"


def _private(root: Path) -> str:
    if os.name == "posix" and stat.S_IMODE((root / ".env").stat().st_mode) & 0o077:
        raise BadConfiguration("Others on this machine can read it.", "", "chmod 600 .env")
    return "readable by you alone"


def _compose_file(root: Path, file: Path, known: dict[str, Orchestrator]) -> str:
    found = orchestrators.load(root, file)
    if found:
        default = settings.defaults(root, {})
        orchestrators.require_keys({found.name: found}, default.values)
        base_images(default, found.name)
        known[found.name] = found
    return found.title if found else "no orchestrator"
