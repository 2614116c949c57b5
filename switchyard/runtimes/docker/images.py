"""The images of the Docker runtime: built from the checkout, or pulled where a release is in use."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rundbt import project_files
from switchyard import caller, certificates, console, diagnosis, fingerprints, python_packages
from switchyard import project as projects
from switchyard.errors import BadConfiguration, ImageUnavailable
from switchyard.neighbours import CHECKOUT_LABEL
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.engine import Engine
from switchyard.runtimes.runtime import POSTGRES, OnLine

LABEL_ENVIRONMENT = "switchyard.environment"
LABEL_PROJECT = "switchyard.project"
BROKER = "redis"  # the service between an orchestrator and its workers
PLATFORM = ["--python-platform", "linux", "--python-version", "3.12"]  # as in the images


class DockerImages:
    """See `switchyard.runtimes.runtime.Images`.

    Attributes:
        with_broker: whether `build` and `outdated` include the broker, if there are workers.
    """

    with_broker = True
    kind, in_use = "image", False
    cache_note = "  Docker keeps the cache of all builds, of other projects too: docker builder prune deletes it."

    def __init__(self, engine: Engine) -> None:
        self.engine, self.settings, self.runner = engine, engine.settings, engine.runner

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Build the images of ``names`` (``postgres`` or an orchestrator's name).

        Raises:
            BuildFailed: a build failed; with its last lines.
            ImageUnavailable: a base image cannot be pulled.
            BadConfiguration: a file in ``certs/`` is not a certificate.
        """
        self.engine.own()
        names = list(names)
        for name in names:
            if image := self._missing_broker(name):
                self._pull_image(image, "Set REDIS_IMAGE in .env to an image that exists, or run without workers: WORKERS=0", on_line)
        if self.settings["RELEASE_FILE"]:
            self._pull(names, on_line)
            return
        if not self.runner.dry:
            self.settings.write_for_compose()
        certificates.check(self.settings.root)
        for name in names:
            env = {"SWITCHYARD_ENVIRONMENT": self._image_fingerprint(name), "SWITCHYARD_CHECKOUT": str(self.settings.root)}
            try:
                fingerprints.check_base_images(self.settings, name)
            except BadConfiguration as odd:
                console.advice(f"Base images: {odd.what} {odd.why} Next: {odd.next}")
            service = POSTGRES if name == POSTGRES else self.engine.orchestrators[name].built
            ssh = False
            if name != POSTGRES:
                env |= self._prepare(name, on_line)
                ssh = self.engine.project.needs_ssh and ("SSH_AUTH_SOCK" in os.environ or os.name == "nt")
            command = argv.build(
                self.settings, self.engine.file(name), service, cache=cache, proxies=caller.proxy_names(os.environ), ssh=ssh
            )
            done = self.runner.follow(command, on_line, env=env)
            if done.code:
                base_images = fingerprints.base_images(self.settings, name)
                raise diagnosis.image_failed(argv.image_name(self.settings, name), done.stderr, base_images)
        self._prune()

    def _pull(self, names: Iterable[str], on_line: OnLine) -> None:
        """Pull the images of a release, and unpack the project in them, so that the commands can read it."""
        for name in names:
            image = argv.image_name(self.settings, name)
            if not self.engine.has(image):
                self._pull_image(image, "docker login, or ask who made the release", on_line)
            if name != POSTGRES and not self._unpacked and not self.runner.dry:
                self.unpack(image, projects.folder(self.settings))

    def _pull_image(self, image: str, hint: str, on_line: OnLine) -> None:
        done = self.runner.follow(["docker", "pull", image], on_line)
        if done.code:
            raise ImageUnavailable(f"The image {image} cannot be pulled.", done.stderr.strip(), hint)

    def _missing_broker(self, name: str) -> str:
        """The image of the broker, if the orchestrator's workers need it and the engine does not have it; otherwise an empty text."""
        image = self.settings["REDIS_IMAGE"]
        workers = self.settings["WORKERS"] if self.with_broker else ""
        needed = workers and name in self.engine.orchestrators and BROKER in self.engine.orchestrators[name].scaled
        return image if needed and not self.engine.has(image) else ""

    @property
    def _unpacked(self) -> bool:
        """Whether the project of the release is unpacked."""
        return (projects.folder(self.settings) / projects.FILE).exists()

    def unpack(self, image: str, place: Path) -> None:
        """Copy the dbt project in an image, with its profile, into a new folder."""
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            copy = Path(folder, "project")
            self.copy_out(image, {"/opt/dbt/project": copy, "/opt/dbt/profiles/profiles.yml": copy / "profiles.yml"})
            copy.rename(place)

    def copy_out(self, image: str, paths: Mapping[str, Path]) -> None:
        """Copy files or folders out of an image, in this order, without starting it."""
        container = self.engine.checked(self.runner.ask(["docker", "create", "--network", "none", image])).stdout.strip()
        try:
            for source, target in paths.items():
                self.engine.checked(self.runner.ask(["docker", "cp", f"{container}:{source}", str(target)]))
        finally:
            self.runner.ask(["docker", "rm", container])

    def _prune(self) -> None:
        """Delete the checkout's images that lost their name to a newer one and are not in use."""
        self.runner.change(["docker", "image", "prune", "--force", "--filter", f"label={CHECKOUT_LABEL}={self.settings.root}"])

    def _prepare(self, name: str, on_line: OnLine) -> dict[str, str]:
        """Put the files for an orchestrator's image into the build context, and return the variables of the build."""
        if not self.runner.dry:
            projects.stage(self.settings, self.engine.project)
        python_packages.extra(self.settings, name, self.engine.project, self.runner, PLATFORM, on_line)
        return {
            "SWITCHYARD_PROJECT": project_files.fingerprint(self.engine.project.folder),
            "SWITCHYARD_PROFILE": self.engine.project.profile,
            "SWITCHYARD_TARGET": self.engine.project.target,
            "SWITCHYARD_DBNAME": self.engine.project.database,
            "SWITCHYARD_GIT": "1" if self.engine.project.needs_git else "",
            "SWITCHYARD_BUILD_ENV": self.engine.project.shell(),
        }

    def _image_fingerprint(self, name: str) -> str:
        return fingerprints.image_fingerprint(self.settings, name, None if name == POSTGRES else self.engine.project)

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` whose image is missing, or was built from other files than the current ones.

        An edited model makes an image outdated only for a baked run: a mounted project is always current. An image of a release is
        outdated only if it was not pulled yet.
        """
        return [name for name in names if not self._current(name, baked)]

    def _current(self, name: str, baked: bool) -> bool:
        if self._missing_broker(name):
            return False
        image = argv.image_name(self.settings, name)
        if self.settings["RELEASE_FILE"]:
            return self.engine.has(image) and (self._unpacked or name == POSTGRES)
        found = self.runner.ask(["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image])
        if found.code:
            return False
        labels = json.loads(found.stdout) or {}
        wanted = {LABEL_ENVIRONMENT: self._image_fingerprint(name)}
        if baked and name != POSTGRES:
            wanted[LABEL_PROJECT] = project_files.fingerprint(self.engine.project.folder)
        return wanted.items() <= labels.items()

    def names(self) -> list[str]:
        """The names of the stack's images that exist."""
        return self.engine.images()

    def remove(self, names: Sequence[str]) -> None:
        """Delete the images called ``names``."""
        if names:
            self.engine.checked(self.runner.change(["docker", "image", "rm", *names]))
            self._prune()
