"""`invoke lock`: every lock, from the ``requirements*.in`` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from switchyard import environments
from switchyard.errors import BadUsage, BuildFailed
from switchyard.runner import Runner
from switchyard.runtimes.runtime import OnLine

FOLDERS = (".", "docker/*", "compare", "tests/standins/*", "tests/fourth/files/docker/*")
ALWAYS = ("--quiet", "--no-emit-index-url", "--no-annotate", "--no-header")
# What a file has that does not name others: its lock is for every platform and every Python that can run Invoke.
OPTIONS = "--universal --python-version 3.10 --generate-hashes"
_OWN = re.compile(r"^# lock: (.*)$", re.M)
_ASKED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:==([\w.+!-]+))?", re.A)


def sources(root: Path) -> list[Path]:
    """The files from which locks are made, each after those that it refers to."""
    found = (path for folder in FOLDERS for path in root.glob(f"{folder}/requirements*.in"))
    return sorted(found, key=lambda path: (path.parent, path.name != "requirements.in", path.name))


def argv(source: Path, upgrade: str | None) -> list[str]:
    """The command that makes the lock of ``source``.

    Args:
        source: the file. A line ``# lock: OPTIONS`` in it takes the place of `OPTIONS`.
        upgrade: the package that may move; an empty text for all, None for none.
    """
    own = _OWN.search(source.read_text(encoding="utf-8"))
    options = (own[1] if own else OPTIONS).split()
    moving = [] if upgrade is None else ["--upgrade-package", upgrade] if upgrade else ["--upgrade"]
    lock = source.with_suffix(".txt")
    return [*environments.UV, "pip", "compile", *ALWAYS, *options, *moving, "--output-file", str(lock), str(source)]


def make(root: Path, runner: Runner, upgrade: str | None, on_line: OnLine) -> list[Path]:
    """Make every lock, and return those that have changed.

    Args:
        root: the checkout.
        runner: what starts uv.
        upgrade: None keeps each version as long as its file allows it; an empty text takes the newest of all packages; a package's name
            the newest of that one, and ``name==version`` that version, which is written into the files that pin the package.
        on_line: called with each lock that is made.

    Raises:
        BadUsage: no lock has the package, or it is none.
        BuildFailed: the requirements of a file contradict each other; with uv's own words. No file is pinned otherwise than before.
    """
    asked = _ASKED.fullmatch(upgrade) if upgrade else None
    if upgrade and not asked:
        raise BadUsage(f"{upgrade!r} is no package, nor a package and its version.", "", "invoke lock --upgrade dbt-core==1.11.16")
    name, version = asked.groups() if asked else ("", None)
    if name and not any(re.search(rf"^{re.escape(name)}==", lock, re.M | re.I) for lock in _texts(root)):
        raise BadUsage(f"No lock has a package called {name!r}.", "", "invoke lock --upgrade dbt-core")
    pinned = _pin(root, name, version) if version and not runner.dry else {}
    changed = []
    try:
        for source in sources(root):
            lock = source.with_suffix(".txt")
            on_line(lock.relative_to(root).as_posix())
            before = lock.read_bytes() if lock.exists() else b""
            done = runner.follow(argv(source, upgrade), lambda _: None, env={"UV_PYTHON_DOWNLOADS": "never"})
            if done.code:
                where = source.relative_to(root).as_posix()
                raise BuildFailed(f"No lock can be made from {where}.", done.stderr.strip(), f"Change {where}, then: invoke lock")
            if lock.exists() and lock.read_bytes() != before:
                changed.append(lock)
    except BaseException:
        for source, text in pinned.items():
            source.write_bytes(text)
        raise
    return changed


def _pin(root: Path, name: str, version: str) -> dict[Path, bytes]:
    """Write a version into each file that pins the package; returns those files as they were."""
    before = {}
    for source in sources(root):
        old = source.read_bytes()
        new = re.sub(rf"^({re.escape(name)}==)\S+".encode(), lambda match: match[1] + version.encode(), old, flags=re.M | re.I)
        if new != old:
            before[source] = old
            source.write_bytes(new)
    return before


def _texts(root: Path) -> Iterator[str]:
    for source in sources(root):
        lock = source.with_suffix(".txt")
        if lock.exists():
            yield lock.read_text(encoding="utf-8")
