"""`invoke release`: push tested, baked images to a registry, and write a file with the digest of each."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from bench.rig import CHECKOUT_HASH, rig
from rundbt import jobs, project_files
from switchyard import checks, console, lifecycle, pins, python_packages, release
from switchyard import project as projects
from switchyard.errors import BadConfiguration, BadUsage, BuildFailed, EngineMissing, RunFailed, StackError
from switchyard.neighbours import CHECKOUT_LABEL
from switchyard.project import Project
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.images import BROKER
from switchyard.runtimes.docker.runtime import Docker
from switchyard.runtimes.runtime import POSTGRES

NAME = f"switchyard-release-{CHECKOUT_HASH}"  # the compose project in which the images are tested
FOLDER = "releases"
MANIFEST = "manifest.json"
SMOKE = "smoke"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # as registries take it
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*")
_UNKNOWN = re.compile("not found|manifest unknown|name unknown", re.I)  # a registry's answer for an image that it does not have
PACKAGE = "switchyard.package"  # the prefix of labels with the versions of an image's packages
_OCI = "org.opencontainers.image"


def publish(runtime: Docker, registry: str, tag: str, names: Sequence[str], out: Path | None) -> None:
    """Build the images of a release, run the project on them, push them, and write the release's file.

    Args:
        runtime: the checkout's Docker runtime.
        registry: the address that all images begin with, such as ``localhost:5000/shop``.
        tag: the tag of each image, such as ``2026.11.1``.
        names: the orchestrators.
        out: the folder of the file; None for one in ``releases/``.

    Raises:
        BadUsage: the registry, the tag or the folder is invalid, or already has the release; or something is not committed, or was
            changed during the builds.
        BadConfiguration: the project needs files that no image can contain.
        EngineMissing: the registry cannot be reached.
        BuildFailed: an image cannot be built or pushed.
        RunFailed: the project does not run on the images; nothing was pushed.
    """
    if not _TAG.fullmatch(tag):
        raise BadUsage(f"{tag!r} is not a valid tag.", "Letters, digits, - _ and . are allowed.", "invoke release --tag 2026.11.1")
    if not _REGISTRY.fullmatch(registry):
        raise BadUsage(f"{registry!r} is not a registry address.", "", "invoke release --registry localhost:5000/shop")
    if runtime.settings["RELEASE_FILE"]:
        raise BadUsage("A release is in use, and a release is made from what is built here.", "", "invoke use FOLDER")
    folder = out or runtime.settings.root / FOLDER / tag
    if (folder / "release.json").exists():
        raise BadUsage(f"{folder} has a release already.", "A release never changes.", "invoke release --tag ANOTHER")
    project = runtime.project
    if project.files:
        named = ", ".join(map(str, project.files.values()))
        raise BadConfiguration(
            "The profile uses files on this machine, which no image contains.", named, "Read their content in the profile with env_var()."
        )
    commits = checked(runtime, project)
    console.ok(f"Commit {commits[runtime.settings.root][:12]}, with nothing uncommitted")
    images = {name: f"{registry}/{name}:{tag}" for name in (*names, POSTGRES)}
    now = datetime.now(timezone.utc)
    # Only of the orchestrators: the packages that are locked for PostgreSQL are for the native runtime, not in an image.
    redis = runtime.settings["REDIS_IMAGE"]
    versions = {name: python_packages.versions(runtime.settings.root, name) for name in names}
    content = {
        "schema": release.SCHEMA,
        "tag": tag,
        "time": now.isoformat(timespec="seconds"),
        "commit": commits[runtime.settings.root],
        "project": {
            "name": project.name,
            "commit": commits[project.folder],
            "fingerprint": project_files.fingerprint(project.folder),
            "target": project.target,
            "shared": project.shared,
            "shop": project.shop,
        },
        "versions": versions,
        "broker": redis if "@" in redis else pins.by_digest({BROKER: redis}, runtime.runner)[BROKER],
        "manifest": MANIFEST,
    }
    labels = {
        f"{_OCI}.version": tag,
        f"{_OCI}.created": str(content["time"]),
        f"{_OCI}.revision": commits[runtime.settings.root],
        CHECKOUT_LABEL: "",  # no checkout on this machine owns it
    }
    checks.make_folder(folder, "invoke release")  # before the slow steps
    try:
        unused(runtime, images, commits[runtime.settings.root])
        runtime.images.with_broker = False  # no image of a release contains it
        lifecycle.build(runtime, runtime.images.outdated(images, baked=True))
        if checked(runtime, project) != commits:  # the builds take minutes, and copy the folders as they are then
            next_ = "type the same command again"
            raise BadUsage("There was a commit during the builds.", "The images may contain only a part of it.", next_)
        ids = {}
        for name, image in images.items():
            own = {f"{PACKAGE}.{package}": version for package, version in versions.get(name, {}).items()}
            ids[name] = labelled(runtime, argv.image_name(runtime.settings, name), image, {**labels, **own})
        tried(runtime, project, {**content, "images": ids}, names)
        runtime.images.copy_out(ids[names[0]], {f"/opt/dbt/baked/{MANIFEST}": folder / MANIFEST})
        pushed = {name: push(runtime, image) for name, image in images.items()}  # PostgreSQL is last: with it, the release is complete
        write(folder, {**content, "images": pushed})
    finally:
        runtime.runner.ask(["docker", "image", "rm", *images.values()])
        if not (folder / "release.json").exists():  # the next try would find an uncommitted file
            (folder / MANIFEST).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # if nothing was released
    console.ok(f"Written to {folder / 'release.json'}")
    console.note(f"  next: {release.command(folder / 'release.json', runtime.settings.root)}")


def checked(runtime: Docker, project: Project) -> dict[Path, str]:
    """The commits of the folders from which the images are built, after checking that they have nothing else.

    Raises:
        BadUsage: they have.
    """
    commits = {place: committed(runtime, place) for place in (runtime.settings.root, *projects.folders(project))}
    tracked(runtime, project)
    return commits


def committed(runtime: Docker, place: Path) -> str:
    """The commit of the repository that contains ``place``, after checking that nothing is uncommitted.

    Raises:
        BadUsage: something is, or it is not in a repository.
    """
    git = ["git", "-C", str(place)]
    head = runtime.runner.ask([*git, "rev-parse", "--verify", "HEAD"])
    status = runtime.runner.ask([*git, "status", "--porcelain", "--untracked-files=all"])
    if head.code or status.code:
        stderr = (head.stderr or status.stderr).strip()
        raise BadUsage(f"{place} has no git commit.", stderr, "A release records the commit that it was built from: git commit")
    refuse(place, "has changes that are not committed", status.stdout.splitlines(), "git commit, or git stash; then the same command")
    return head.stdout.strip()


def tracked(runtime: Docker, project: Project) -> None:
    """Make sure that git tracks each file of the project and its local packages that is built in: an ignored one may have a secret.

    Raises:
        BadUsage: it does not track one.
    """
    built = projects.built_in(project)
    for place in projects.folders(project):
        known = {
            place / name
            for name in runtime.runner.ask(["git", "-C", str(place), "ls-files", "-z", "--cached", "--recurse-submodules"]).stdout.split(
                "\0"
            )
        }
        found = [path.relative_to(place).as_posix() for path in sorted(built - known) if path.is_relative_to(place)]
        refuse(place, "has files that git ignores and that would be in the images", found, "Move them out of the project, or commit them.")


def refuse(place: Path, what: str, found: Sequence[str], next_: str) -> None:
    """Refuse a release because of ``found``; do nothing if that is empty."""
    if found:
        shown = "\n".join(found[:10]) + (f"\nand {len(found) - 10} more" if len(found) > 10 else "")
        raise BadUsage(f"{place} {what}.", shown, next_)


def unused(runtime: Docker, images: Mapping[str, str], commit: str) -> None:
    """Make sure that the registry answers and does not have the release; images of an interrupted push of the same commit are fine.

    Args:
        images: the address of each image, by its name.

    Raises:
        BadUsage: it has the release.
        EngineMissing: it does not answer, or refuses access.
    """
    for name, image in images.items():
        found = runtime.runner.ask(["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Image}}", image], seconds=60)
        if not found.code and (name == POSTGRES or revision(found.stdout) != commit):
            raise BadUsage(f"The registry has {image} already.", "What was released never changes.", "invoke release --tag ANOTHER")
        if found.code and not _UNKNOWN.search(found.stderr):
            next_ = f"docker login {image.partition('/')[0]}, or another --registry"
            raise EngineMissing(f"Could not check whether the registry has {image}.", found.stderr.strip(), next_)


def revision(image: str) -> str | None:
    """The commit in an image's label, from buildx's JSON; None without a label, or for several platforms."""
    labels: Mapping[str, str] = json.loads(image).get("config", {}).get("Labels") or {}
    return labels.get(f"{_OCI}.revision")


def labelled(runtime: Docker, source: str, image: str, labels: Mapping[str, str]) -> str:
    """Add labels and a name to an image; returns the new image's id.

    Raises:
        BuildFailed: Docker refuses.
    """
    options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:  # buildx would leave a file behind for a Dockerfile from standard input
        Path(folder, "Dockerfile").write_text(f"FROM {source}\n", encoding="utf-8")
        done = runtime.runner.change(["docker", "build", "--quiet", "--tag", image, *options, folder])
    if done.code:
        raise BuildFailed(f"{image} could not be built.", done.stderr.strip(), "invoke build")
    return done.stdout.strip()


def tried(runtime: Docker, project: Project, content: Mapping[str, object], names: Sequence[str]) -> None:
    """Run the project on the images, one orchestrator after the other, on a separate, empty database.

    The project's own warehouse may be in production: then the project is only parsed, and nothing is built.

    Raises:
        RunFailed: it does not run.
    """
    known = jobs.read(project.folder)
    wanted = [job for job in dict.fromkeys((jobs.first(known), SMOKE)) if job in known] if project.shared else []

    def prepare(copy: Path) -> dict[str, str]:
        draft = copy / ".stack" / "draft.json"
        draft.parent.mkdir(mode=0o700, exist_ok=True)
        draft.write_text(json.dumps(content), encoding="utf-8")
        return {**project.variables, "RELEASE_FILE": str(draft)}

    commands: list[tuple[str, ...]] = [("run", "--job", job) for job in wanted]
    done = " and ".join(wanted) + " succeeded" if wanted else "the project was parsed"
    with rig("docker", names, NAME, prepare) as made:
        for name in names:
            title = made.orchestrators[name].title
            with console.Waiting("test", f"the images of {title}") as waiting:
                step = "the start"
                try:
                    made.on(name)
                    for words in commands or [("dbt", "parse")]:
                        step = f"invoke {' '.join(words)}"
                        waiting.detail(step)
                        made.invoke(*words)
                except StackError as error:
                    what = f"On the images of {title}, {step} failed; nothing was pushed."
                    raise RunFailed(what, error.why, "Fix that, commit, then try again.") from None
            console.ok(f"{title}: {done} on the images after {waiting.seconds:.0f} s")


def push(runtime: Docker, image: str) -> str:
    """Push an image; returns its address with the digest from the registry.

    Raises:
        BuildFailed: the registry refuses it.
    """
    with console.Waiting("push", image) as waiting:
        done = runtime.runner.follow(["docker", "push", image], waiting.detail)
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", done.stderr)
    if done.code or not digest:
        raise BuildFailed(f"{image} could not be pushed.", done.stderr, f"docker login {image.partition('/')[0]}")
    console.ok(f"{image} is {digest[1]}")
    return f"{image.rpartition(':')[0]}@{digest[1]}"


def write(folder: Path, content: Mapping[str, object]) -> None:
    """Write the release's file atomically."""
    draft = folder / "release.json.partial"
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, folder / "release.json")
