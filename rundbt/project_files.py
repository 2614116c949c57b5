"""The dbt project's files: their fingerprint, the project's packages, and a manifest that is never older than the files.

The user's folder is only read. dbt works in a second folder, which `lay_out` fills with links to the user's files and to the packages:
dbt looks for packages inside the project, and has no setting for a place outside it.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import yaml

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                time.sleep(0.1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


# dbt, run by the warm dbt where there is one; see `rundbt.warm`.
DROP_IN = Path(__file__).parent / "bin" / "dbt"
DBT = str(DROP_IN) if sys.platform == "linux" else "dbt"
# The same for a run: it also ends when the process that started it is killed.
DBT_OF_A_RUN = str(DROP_IN.with_name("dbt_of_a_run")) if sys.platform == "linux" else DBT

PARTIAL = "partial_parse.msgpack"  # dbt 2 writes none
ARTIFACTS = ("manifest.json", PARTIAL)
DECODE, NOT_UTF8 = "codec can't decode byte", "Not in UTF-8, which dbt requires"
READ = {".csv", ".md", ".py", ".sql", ".yaml", ".yml"}
MADE = {"target", "logs", "dbt_packages"}  # by dbt, if next to a dbt_project.yml; elsewhere, a folder of models may have such a name
CACHE = "__pycache__"


class ParseFailed(Exception):
    """dbt could not parse the project or install its packages; the text is dbt's own."""


def source_dir() -> Path:
    """The user's dbt project, from SWITCHYARD_SOURCE_PATH."""
    return Path(os.environ["SWITCHYARD_SOURCE_PATH"])


def project_dir() -> Path:
    """The folder that dbt works in, from DBT_PROJECT_DIR."""
    return Path(os.environ["DBT_PROJECT_DIR"])


def target_dir() -> Path:
    """Where manifests are kept, from SWITCHYARD_TARGET_PATH; always outside the project."""
    return Path(os.environ["SWITCHYARD_TARGET_PATH"])


def share_files() -> None:
    """In a container, let the other orchestrators' accounts, which share this one's group, write to its files, such as DuckDB's."""
    if "SWITCHYARD_BAKED_PATH" in os.environ:
        os.umask(0o002)


def packages_folder(project: Path) -> Path | None:
    """Where in the project dbt looks for its packages; None if a variable, such as DBT_PACKAGES_PATH, or an absolute path sets it.

    Raises:
        ParseFailed: ``dbt_project.yml`` cannot be read.
    """
    try:
        content = yaml.safe_load((project / "dbt_project.yml").read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, or not UTF-8
        raise ParseFailed(f"dbt_project.yml cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ParseFailed("dbt_project.yml cannot be read: it is not a mapping.")
    text = str(content.get("packages-install-path") or content.get("modules-path") or "dbt_packages")
    return None if "{{" in text or Path(text).is_absolute() else Path(text)


def lay_out() -> None:
    """Create or update the folder that dbt works in; the caller holds the lock."""
    source, work = source_dir(), project_dir()
    if source.resolve() == work.resolve():  # someone runs dbt in the project itself
        return
    inside = packages_folder(source)
    # The profile that applies is in DBT_PROFILES_DIR, and dbt would write through a link to package-lock.yml.
    without = {*MADE, CACHE, "profiles.yml", "package-lock.yml"}
    wanted = {Path(path.name): path for path in source.iterdir() if path.name not in without and not is_hidden(path)}
    if inside:
        for depth in range(1, len(inside.parts)):  # a parent folder of the packages cannot be a link
            above = Path(*inside.parts[:depth])
            wanted.pop(above, None)
            if (source / above).is_dir():
                wanted |= {above / path.name: path for path in (source / above).iterdir()}
        wanted[inside] = Path(os.environ["DBT_PACKAGES_PATH"])
    for folder, folders, files in os.walk(work):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and str(wanted.get(path.relative_to(work))) != os.readlink(path):
                path.unlink()
    if os.name == "nt":  # there are copies instead of links: delete those of deleted files
        for path in work.iterdir() if work.exists() else ():
            if path.name not in {place.parts[0] for place in wanted}:
                remove(path)
    for place, target in wanted.items():
        link = work / place
        link.parent.mkdir(parents=True, exist_ok=True)
        if os.name == "nt":  # an ordinary account may not make links
            _mirror(target, link)
        elif not link.is_symlink():
            if link.is_dir():  # a parent folder of the packages, from before packages-install-path changed
                shutil.rmtree(link)
            link.unlink(missing_ok=True)  # a file that a dbt command typed by a person wrote, such as package-lock.yml
            link.symlink_to(target)


def _mirror(source: Path, copy: Path) -> None:
    """Make ``copy`` an exact copy of ``source``."""
    if not source.is_dir():
        if not copy.exists() or not filecmp.cmp(source, copy, shallow=False):
            new = copy.with_name(f"{copy.name}.new")
            shutil.copyfile(source, new)  # without its mode: a read-only copy could not be replaced later
            try:
                os.replace(new, copy)  # atomically: a run may be reading it
            except PermissionError:  # a run has it open
                shutil.copyfile(new, copy)
                new.unlink()
        return
    copy.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in source.iterdir() if path.suffix != ".duckdb"}
    for path in copy.iterdir():
        if path.name not in names:
            remove(path)
    for name in names:
        _mirror(source / name, copy / name)


def remove(path: Path) -> None:
    """Delete a file or folder, read-only ones too, which Windows refuses otherwise."""
    for one in (path, *(path.rglob("*") if path.is_dir() else ())):
        one.chmod(0o700)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def install_packages(dependencies: Path) -> None:
    """Run ``dbt deps``, and put the packages into DBT_PACKAGES_PATH.

    Args:
        dependencies: a copy of the project's files that list packages, and of its local packages; dbt may write package-lock.yml there.
            The file ``.project`` in it has the path of the project inside this copy.

    Raises:
        ParseFailed: dbt cannot install them.
    """
    project = (dependencies / (dependencies / ".project").read_text(encoding="utf-8").strip()).resolve()
    packages = Path(os.environ["DBT_PACKAGES_PATH"])
    packages.mkdir(parents=True, exist_ok=True)
    if any((project / name).exists() for name in ("packages.yml", "dependencies.yml")):
        # Not the warm dbt, which is for runs; it does not run while an image is built.
        done = subprocess.run(
            ["dbt", "--no-use-colors", "--quiet", "--log-level-file", "none", "deps", "--project-dir", str(project)],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            output = (done.stdout + done.stderr).rpartition("Encountered an error:")[2]
            raise ParseFailed(output.partition("Traceback (most recent call last)")[0].strip())
    inside = packages_folder(project)
    found = project / inside if inside else packages
    for package in sorted(found.iterdir()) if found.is_dir() else ():
        place = packages / package.name
        if package.is_symlink():
            target = package.resolve()
            # Link a local package inside the project to the user's own folder, so that edits there take effect.
            if target.is_relative_to(project):
                target = source_dir() / target.relative_to(project)
            package.unlink()
            place.symlink_to(target)
        else:
            if (package / ".git").exists():  # it has the address from packages.yml, which can contain a token
                remove(package / ".git")
            if place != package:
                shutil.move(package, place)


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder of the manifests, locked so that no other process changes it meanwhile."""
    target = target_dir()
    target.mkdir(parents=True, exist_ok=True)
    with open(target / ".lock", "wb") as lock:  # closing the file drops the lock
        _lock(lock)
        yield target


def adopt_baked() -> None:
    """Lay out the project, and start from the parse in the image, at SWITCHYARD_BAKED_PATH: the target of a new container is empty."""
    with _locked() as target:
        _adopt_baked(target)
        lay_out()


def _adopt_baked(target: Path) -> None:
    baked = os.environ.get("SWITCHYARD_BAKED_PATH")
    if baked and Path(baked) != target and not (target / "fingerprint").exists():
        for name in (*ARTIFACTS, "fingerprint"):
            if name != PARTIAL or Path(baked, name).exists():
                shutil.copy(Path(baked, name), target)


def fingerprint(project: Path | None = None) -> str:
    """Sixteen hex digits that change whenever a file of the dbt project is edited, added, renamed or removed.

    Content and names only, no times: the same project has the same fingerprint on every machine. An image has it too, because the
    project's profiles.yml, DuckDB files and Python environments, which are not in the image, do not count.
    """
    root = project or source_dir()
    return digest(root, files(root))


def digest(root: Path, paths: Iterable[Path]) -> str:
    """Sixteen hex digits of the content of files and their names relative to ``root``."""
    found = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return found.hexdigest()[:16]


def files(root: Path) -> Iterator[Path]:
    """The files of a dbt project that a run reads, in a fixed order."""
    for path in walk(root):
        if path.suffix != ".duckdb" and path != root / "profiles.yml" and path.is_file():
            yield path


def walk(root: Path) -> Iterator[Path]:
    """The folders and files of a dbt project, in a fixed order, without those that `is_left_out` and their content."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_left_out(Path(folder, name)))
        yield from (Path(folder, name) for name in folders)
        yield from (path for name in sorted(names) if not is_left_out(path := Path(folder, name)))


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is hidden, except .dbtignore, which dbt reads, or is a Python environment."""
    return (path.name.startswith(".") and path.name != ".dbtignore") or (path / "pyvenv.cfg").exists()


def is_left_out(path: Path) -> bool:
    """Whether a file or folder in a dbt project is not part of it: hidden, an editor's copy, or made by Python or dbt."""
    made = path.name == CACHE or (path.name in MADE and path.with_name("dbt_project.yml").exists())
    return made or is_hidden(path) or path.name.endswith("~")


def ensure_manifest() -> tuple[Path, str]:
    """Parse the project if it changed since the last parse, and return the manifest and its fingerprint.

    Safe to call from several processes at once: one parses, the others wait and use its result. The manifest from the
    image's build is used until the first edit. A failed parse leaves the last good manifest in place.

    Returns:
        The path of ``manifest.json`` and the project's fingerprint.

    Raises:
        ParseFailed: dbt rejected the project.
    """
    with _locked() as target:
        _adopt_baked(target)
        lay_out()
        wanted = fingerprint()
        last = last_manifest()
        if last and last[1] == wanted:
            return last
        _parse(target)
        (target / "fingerprint").write_text(wanted)
        return target / "manifest.json", wanted


def last_manifest() -> tuple[Path, str] | None:
    """The manifest of the last successful parse and its fingerprint, even if the project has changed since; None without one."""
    manifest, stamp = target_dir() / "manifest.json", target_dir() / "fingerprint"
    return (manifest, stamp.read_text()) if manifest.exists() and stamp.exists() else None


def variables_without_secrets() -> dict[str, str]:
    """This process's environment without the orchestrator's secrets: a project can read all of dbt's variables."""
    secrets = os.environ.get("SWITCHYARD_SECRETS", "").split()
    return {key: value for key, value in os.environ.items() if key not in secrets}


def exec_command(command: list[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process with a command, found on PATH, with ``env`` as its environment."""
    if os.name == "nt":  # exec would end this process, which others wait for, and start a new one
        sys.exit(subprocess.call(command, env=env))
    os.execvpe(command[0], command, env)


def _parse(target: Path) -> None:
    """Run ``dbt parse`` in a scratch folder and move its results into place, each atomically."""
    with tempfile.TemporaryDirectory(dir=target, prefix="parse-") as scratch:
        if (target / PARTIAL).exists():
            shutil.copy(target / PARTIAL, scratch)
        done = subprocess.run(
            [DBT, "--no-use-colors", "--log-level", "error", "parse",
             "--project-dir", str(project_dir()), "--target-path", scratch, "--log-path", scratch],
            env=variables_without_secrets(), capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            output = (done.stdout + done.stderr).strip()
            if "Traceback" in output and __name__ != "__main__":  # in a service's log, which is kept
                print(output, file=sys.stderr, flush=True)
            raise ParseFailed(reason(output))
        leave_out_disabled(Path(scratch, "manifest.json"))
        for name in ARTIFACTS:
            if name != PARTIAL or Path(scratch, name).exists():
                os.replace(Path(scratch, name), target / name)


def reason(output: str) -> str:
    """Why dbt could not parse the project, from its ``output``: without a traceback, and with the files that it cannot decode."""
    before, traceback, _ = output.partition("Traceback (most recent call last)")
    message = re.sub(r"(^|\n)[\d:]+\s*$", "", before).strip()  # without the time before the traceback
    if traceback:  # its last line has the exception's type as well
        last = output.splitlines()[-1].strip()
        message = last if message.rpartition("\n")[2] in last else f"{message}\n{last}"
    return f"{message}\n{not_utf8(source_dir())}" if DECODE in message else message


def not_utf8(root: Path) -> str:
    """A sentence with the names of a dbt project's files that dbt reads but cannot decode."""
    return f"{NOT_UTF8}: " + ", ".join(
        path.relative_to(root).as_posix() for path in files(root) if path.suffix in READ and not _is_text(path)
    )


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def leave_out_disabled(manifest: Path) -> None:
    """Remove disabled nodes from the manifest.

    dbt keeps a test of a disabled model in ``nodes`` if the test also reads an enabled one, and never runs it. Cosmos' task would wait
    for it forever.

    Args:
        manifest: a ``manifest.json``, which is rewritten if it has such nodes.
    """
    content = json.loads(manifest.read_bytes())
    disabled = {unique_id for unique_id, node in content["nodes"].items() if node.get("config", {}).get("enabled") is False}
    if not disabled:
        return
    content["nodes"] = {key: node for key, node in content["nodes"].items() if key not in disabled}
    for place in {"parent_map", "child_map"} & content.keys():  # some manifests of dbt 2 have neither
        content[place] = {key: [one for one in near if one not in disabled] for key, near in content[place].items() if key not in disabled}
    manifest.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            install_packages(Path(sys.argv[1]))
        else:
            print(*ensure_manifest())
    except ParseFailed as error:
        sys.exit(str(error))
