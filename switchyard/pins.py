"""`invoke lock`: each lock from the ``requirements*.in`` beside it, within ``versions.toml``, whose images are pinned by digest."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from switchyard import python_packages
from switchyard.errors import BadConfiguration, BadUsage, BuildFailed
from switchyard.runner import Runner
from switchyard.runtimes.runtime import OnLine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERSIONS = "versions.toml"

FOLDERS = (".", "docker/*", "compare", "tests/standins/*", "tests/fourth/files/docker/*")
ALWAYS = ("--quiet", "--no-emit-index-url", "--no-annotate", "--no-header")
# For a file without options of its own: its lock is for every platform and every Python that can run Invoke.
OPTIONS = "--universal --python-version 3.10 --generate-hashes"
_OWN = re.compile(r"^# lock: (.*)$", re.M)
_ASKED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:==([\w.+!-]+))?", re.A)
_IMAGE = re.compile(r"((\w+_IMAGE)(?::-|=))([^}\s]+)")  # in an `.env`, in a Dockerfile, or with its default in a compose file
REGISTRY_TIMEOUT_S = 30


def sources(root: Path) -> list[Path]:
    """The files from which locks are made, each after the files that it refers to."""
    found = (path for folder in FOLDERS for path in root.glob(f"{folder}/requirements*.in"))
    return sorted(found, key=lambda path: (path.parent, path.name != "requirements.in", path.name))


def versions(root: Path) -> dict[str, dict[str, str]]:
    """The content of ``versions.toml``, by section and name: the versions that a package may have, an image, the version of a chart.

    Raises:
        BadConfiguration: the file cannot be read, or an image's tag needs the version of a package that has no exact one.
    """
    try:
        content = tomllib.loads((root / VERSIONS).read_text(encoding="utf-8"))
        exact = {name: constraint.removeprefix("==") for name, constraint in content["packages"].items() if constraint.startswith("==")}
        images = {name: template.format_map(exact) for name, template in content["images"].items()}
        return {"packages": content["packages"], "images": images, "charts": content["charts"]}
    except KeyError as error:
        why = f"It has no section, or no package with one exact version (==), called {error}."
    except (OSError, AttributeError, ValueError) as error:
        why = str(error)
    raise BadConfiguration(f"{VERSIONS} cannot be read.", why, f"git diff {VERSIONS}")


def with_known_digests(root: Path, images: Mapping[str, str]) -> dict[str, str]:
    """``images``, each with its digest from `.env.example`; without one if it has no digest there, or if another image is there."""
    named = dotenv_values(root / ".env.example", interpolate=False)
    return {key: pinned if (pinned := named.get(key) or "").partition("@")[0] == image else image for key, image in images.items()}


def by_digest(images: Mapping[str, str], runner: Runner) -> dict[str, str]:
    """``images``, each with the digest that its registry gives for all platforms; unchanged where no registry answers."""
    found = {}
    for key, image in images.items():
        name = image.partition("@")[0]
        argv = ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{json .Manifest}}"]
        answer = runner.ask(argv, seconds=REGISTRY_TIMEOUT_S)
        found[key] = image if answer.code else f"{name}@{json.loads(answer.stdout)['digest']}"
    return found


def files_to_rewrite(root: Path, images: Mapping[str, str]) -> dict[Path, str]:
    """The files in which the variable of an image has another value than in ``images``, and their new content."""
    found = {}
    for folder in (root, root / "tests" / "fourth" / "files"):
        for path in (*folder.glob(".env.example"), *folder.glob("compose/*.yaml"), *folder.glob("docker/*/Dockerfile")):
            old = path.read_bytes().decode()
            new = _IMAGE.sub(lambda match: match[1] + images.get(match[2], match[3]), old)
            if new != old:
                found[path] = new
    return found


def argv(source: Path, constraints: Path, upgrade: str | None) -> list[str]:
    """The command that makes the lock of ``source``.

    Args:
        source: the file. A line ``# lock: OPTIONS`` in it replaces `OPTIONS`.
        constraints: a file with the versions that packages may have.
        upgrade: the package to upgrade; an empty text for all, None for none.
    """
    own = _OWN.search(source.read_text(encoding="utf-8"))
    options = (own[1] if own else OPTIONS).split()
    moving = [] if upgrade is None else ["--upgrade-package", upgrade] if upgrade else ["--upgrade"]
    lock = source.with_suffix(".txt")
    files = ["--constraints", str(constraints), "--output-file", str(lock), str(source)]
    return [*python_packages.UV, "pip", "compile", *ALWAYS, *options, *moving, *files]


def make(root: Path, runner: Runner, upgrade: str | None, on_line: OnLine) -> list[Path]:
    """Make every lock, write the images with their digests into the files that name them, and return the changed files.

    Args:
        root: the checkout.
        runner: what starts uv.
        upgrade: None keeps each version as long as its file allows it; an empty text takes the newest version of every package,
            and the current digest of every image; a package's name takes the newest version of that package; ``name==version`` takes
            that version, and writes it where the package is pinned, with those that it needs of its product's other packages.
        on_line: called with each lock that is made.

    Raises:
        BadUsage: no lock has the package, or ``upgrade`` is not a package.
        BadConfiguration: ``versions.toml`` cannot be read.
        BuildFailed: the requirements of a file contradict each other; with uv's message. No file has changed.
    """
    asked = _ASKED.fullmatch(upgrade) if upgrade else None
    if upgrade and not asked:
        raise BadUsage(f"{upgrade!r} is neither a package nor NAME==VERSION.", "", "invoke lock --upgrade dbt-core==1.11.16")
    name, version = asked.groups() if asked else ("", None)
    name = python_packages.normal(name)
    if name and not any(re.search(rf"^{re.escape(name)}==", lock, re.M | re.I) for lock in _texts(root)):
        raise BadUsage(f"No lock has a package called {name!r}.", "", "invoke lock --upgrade dbt-core")
    locks = [source.with_suffix(".txt") for source in sources(root)]
    before = {lock: lock.read_bytes() if lock.exists() else None for lock in locks}
    others = beside(versions(root)["packages"], name, version) if version else {}
    pinned = _pin(root, name, version) if version and not runner.dry else {}
    changed = []
    try:
        wanted = versions(root)
        wanted["packages"] |= others
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text("".join(f"{package}{allowed}\n" for package, allowed in wanted["packages"].items()), encoding="utf-8")
            for source, lock in zip(sources(root), locks):
                on_line(lock.relative_to(root).as_posix())
                done = runner.follow(argv(source, constraints, upgrade), lambda _: None, env={"UV_PYTHON_DOWNLOADS": "never"})
                if done.code:
                    where = source.relative_to(root).as_posix()
                    limit = f", which allows {name} {wanted['packages'][name]}" if name in wanted["packages"] else ""
                    next_ = f"Change {VERSIONS}{limit}, or {where}; then: invoke lock{f' --upgrade {upgrade}' if upgrade else ''}"
                    raise BuildFailed(f"No lock can be made from {where}.", done.stderr.strip(), next_)
                if lock.exists() and lock.read_bytes() != before[lock]:
                    changed.append(lock)
        if not runner.dry:
            locked = "\n".join(_texts(root))
            for other in others:
                if match := re.search(rf"^{re.escape(other)}==([^\s;]+)", locked, re.M):
                    pinned = {**_pin(root, other, match[1]), **pinned}
        wanted = versions(root)
    except BaseException:
        for path, content in {**before, **pinned}.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise
    if not runner.dry:
        images = with_known_digests(root, wanted["images"])
        images |= by_digest({key: image for key, image in images.items() if upgrade == "" or "@" not in image}, runner)
        for path, text in files_to_rewrite(root, images).items():
            path.write_bytes(text.encode())
            changed.append(path)
    return [*pinned, *changed]


def beside(packages: Mapping[str, str], name: str, version: str) -> dict[str, str]:
    """What the other pinned packages of a product may have while one moves: they require each other, so uv finds their versions.

    None moves in the other direction: very old versions require no particular one of each other, and uv would take those.

    Args:
        packages: the packages of `versions`. Those of a product have the same first word.
        name: the package that moves.
        version: to which version.
    """
    now = packages.get(name, "")
    if not now.startswith("=="):
        return {}
    back = _numbers(version) < _numbers(now)
    return {
        other: allowed.replace("==", "<=" if back else ">=")
        for other, allowed in packages.items()
        if other != name and allowed.startswith("==") and other.partition("-")[0] == name.partition("-")[0]
    }


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _pin(root: Path, name: str, version: str) -> dict[Path, bytes]:
    """Write a version into each file that pins the package; returns those files with their old content."""
    before = {}
    pin = re.compile(rf'^({re.escape(name)}(?: = ")?==)[^"\s]+'.encode(), re.M | re.I)
    for path in (root / VERSIONS, *sources(root)):
        old = path.read_bytes()
        new = pin.sub(lambda match: match[1] + version.encode(), old)
        if new != old:
            before[path] = old
            path.write_bytes(new)
    return before


def _texts(root: Path) -> Iterator[str]:
    for source in sources(root):
        lock = source.with_suffix(".txt")
        if lock.exists():
            yield lock.read_text(encoding="utf-8")
