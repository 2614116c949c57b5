"""The Docker runtime's checks before a start."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil

from rundbt import project_files
from switchyard import bootstrap, certificates, checks, ports, python_packages
from switchyard import project as projects
from switchyard.checks import Check
from switchyard.errors import BadConfiguration, EngineMissing, StackError
from switchyard.orchestrators import Orchestrator
from switchyard.runtimes import both
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.data import DockerData
from switchyard.runtimes.docker.engine import Engine, rejected
from switchyard.runtimes.docker.images import DockerImages
from switchyard.runtimes.runtime import POSTGRES
from switchyard.settings import postgres_memory

OVERLAY = "overlay"  # the driver of a network that spans machines
PGDATA = "/var/lib/postgresql/data"
OLD_IMAGE = "set POSTGRES_IMAGE in .env to that version's image, invoke up, invoke backup."


class DockerChecks:
    """See `switchyard.runtimes.runtime.Checks`."""

    def __init__(self, engine: Engine, images: DockerImages, data: DockerData) -> None:
        self.engine, self.images, self.data = engine, images, data
        self.settings, self.runner = engine.settings, engine.runner

    def of(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """The checks before one of ``targets`` is started."""
        keys = ("POSTGRES_PORT", *(target.ui_port for target in targets))
        return [
            Check("Folders", partial(checks.folders, self.settings.root, projects.folder(self.settings), native=False)),
            Check("Compose project", self.engine.own),
            Check("dbt project", lambda: python_packages.describe(self.settings, self.engine.project)),
            *([] if self.settings["RELEASE_FILE"] else [Check("dbt project's files", partial(self._readable, targets))]),
            *(Check(f"Compose and {target.file.name}", partial(self._accepted, target)) for target in targets),
            *(Check(key, partial(self._port, key)) for key in keys),
            Check(f"{certificates.FOLDER}/", partial(certificates.check, self.settings.root)),
            *(Check("Memory", partial(self._memory, target)) for target in targets),
            Check("Disk", self._disk),
            Check("Network", self._network),
            Check("Data", self._data),
            Check("Sizes", self._sizes, advice=True),
            Check("Images", partial(self._images, targets), advice=True),
            Check("Buildx", self._buildx, advice=True),
            Check("Leftovers", self._leftovers, advice=True),
        ]

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Run the checks that are not advice, before anything that runs is touched.

        Raises:
            BadConfiguration: Compose rejects the files, or a file in ``certs/`` is not a certificate.
            PortInUse: another program holds a port that the target publishes.
            OutOfMemory: there is too little memory for the target.
            NoSpace: the disk is nearly full.
            IncompatibleData: the volume has another PostgreSQL version.
        """
        with ThreadPoolExecutor() as pool:  # the checks mostly wait for Docker's answers
            for checked in [pool.submit(check.run) for check in self.of([target]) if not check.advice]:
                checked.result()

    def _readable(self, targets: Sequence[Orchestrator]) -> str:
        """Make sure that the containers' accounts, whose only group is root, may read what is mounted."""
        if os.name == "posix" and self.engine.machine[2]:
            files = list(project_files.files(self.engine.project.folder))
            folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.engine.project.folder)}
            for path in (*sorted(folders), *files):
                found = path.stat()
                wanted = 0o5 if path.is_dir() else 0o4
                if found.st_mode & wanted != wanted and not (found.st_gid == 0 and found.st_mode >> 3 & wanted == wanted):
                    raise BadConfiguration(
                        "The containers cannot read the dbt project.",
                        f"{path} has mode {stat.S_IMODE(found.st_mode):o}, and their accounts are not yours.",
                        f"chmod -R go+rX {shlex.quote(str(self.engine.project.folder))}",
                    )
            dockerfiles = [(self.settings.root / "docker" / target.name / "Dockerfile").read_text(encoding="utf-8") for target in targets]
            accounts = {int(user) for text in dockerfiles for user in re.findall(r"^USER (\d+)", text, re.M)[-1:]}
            for path in self.engine.project.files.values():
                found = path.stat()
                of_group = found.st_gid == 0 and found.st_mode & 0o40
                if not (found.st_mode & 0o4 or of_group or accounts == {found.st_uid}):
                    raise BadConfiguration(
                        "The containers cannot read a file that the profile names.",
                        f"{path} has mode {stat.S_IMODE(found.st_mode):o}, and their accounts are not yours.",
                        f"Have the profile read its content with env_var(), or: chmod go+r {shlex.quote(str(path))}",
                    )
        return "readable by the containers"

    def _accepted(self, target: Orchestrator) -> str:
        checked = self.runner.ask(argv.compose(self.settings, target.file, "config", "--quiet"))
        if checked.code:
            raise rejected(target.file, checked.stderr)
        return "valid"

    def _port(self, key: str) -> str:
        port = self.settings.port(key)
        holders = checks.publishers(port, self.runner)
        if not holders and ports.free(port):
            return f"{port} is free"
        if port in self.engine.bound():
            return f"{port} is held by this stack"
        return both.taken_port(key, self.settings, self.engine.environ, holders)

    def _memory(self, target: Orchestrator) -> str:
        total, _, here = self.engine.machine
        checks.postgres_cache(postgres_memory(self.settings["POSTGRES_MEMORY"])["POSTGRES_SHARED_BUFFERS"], total // checks.MIB)
        services = self.engine.services()
        active = self.engine.orchestrators.get(self.engine.active(services) or "") if here else None
        freed = active.memory_with(sum(service.name == active.worker and service.up for service in services)) if active else 0
        available = psutil.virtual_memory().available if here else total
        return both.memory(target, int(self.settings["WORKERS"] or 0), freed, available)

    def _network(self) -> str:
        """Make sure that the stack's network has, or can get, the driver in NETWORK in ``.env``."""
        there, driver = self.engine.network(), self.settings["NETWORK"]
        if there and there != driver:
            raise BadConfiguration(
                f"The stack's network still has the driver {there}.", f"NETWORK in .env is {driver}.", "invoke down, then the same command"
            )
        if driver != OVERLAY:
            return driver
        swarm = self.runner.ask(["docker", "info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}"])
        if swarm.stdout.strip() != "active true":
            raise BadConfiguration(
                "An overlay network needs a Docker swarm, and this machine is not a manager of one.",
                f"NETWORK in .env is {driver}.",
                "docker swarm init, or NETWORK=bridge in .env",
            )
        return driver

    def _disk(self) -> str:
        _, folder, here = self.engine.machine
        return checks.disk(folder if here else self.settings.root)

    def _data(self) -> str:
        """Compare the PostgreSQL version of the volume with that of the image, if both exist and no server has opened the volume yet."""
        if any(service.name == POSTGRES for service in self.engine.services()):
            return "in use"
        image = argv.image_name(self.settings, POSTGRES)
        if not self.data.exists():
            return "none yet"
        if not self.engine.has(image):
            return "not checked: the server's image is not here yet"
        script = f"cat {PGDATA}/PG_VERSION 2>/dev/null; echo; postgres --version"
        command = ["docker", "run", "--rm", "--network", "none", "--volume", f"{self.engine.volume}:{PGDATA}:ro", "--entrypoint", "sh"]
        found, _, program = self.engine.checked(self.runner.ask([*command, image, "-c", script])).stdout.partition("\n")
        major = re.search(r" (\d+)", program)
        return checks.same_major(found.strip(), major[1] if major else "", OLD_IMAGE)

    def _sizes(self) -> str:
        if not any(service.name == POSTGRES and service.health == "healthy" for service in self.engine.services()):
            return "not known while PostgreSQL is down"
        command = argv.psql("postgres", "--tuples-only", "--no-align", "--command", bootstrap.SIZES)
        return self.engine.checked(self.runner.ask(argv.on_server(self.settings, command))).stdout.strip()

    def _images(self, targets: Sequence[Orchestrator]) -> str:
        return both.next_build(self.images.outdated([POSTGRES, *(target.name for target in targets)], baked=False), "builds")

    def _buildx(self) -> str:
        found = self.runner.ask(["docker", "buildx", "version"])
        if found.code:
            raise EngineMissing("Docker has no buildx plugin.", "Images are built with it.", "Install the package docker-buildx-plugin.")
        return "there"

    def _leftovers(self) -> str:
        known = ("", *self.engine.orchestrators)
        strangers = [service.container for service in self.engine.services() if service.orchestrator not in known]
        if strangers:
            raise StackError(f"Containers of an orchestrator that has no compose file: {', '.join(strangers)}.", "", "invoke down")
        return "none"
