"""The Docker runtime: functions that return ``docker compose -f ...`` argv lists, and a class that runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import psutil

from rundbt.project import files as project_files
from switchyard import bootstrap, certificates, checks, console, diagnosis, environments, fingerprints, neighbours, plan, ports, release
from switchyard import project as projects
from switchyard.checks import Check
from switchyard.errors import (
    BadConfiguration,
    EngineMissing,
    ImageUnavailable,
    NotHealthy,
    NothingActive,
    StackError,
    still_starting,
)
from switchyard.neighbours import CHECKOUT, PROJECT
from switchyard.orchestrators import Orchestrator, stop_order
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.runtime import POSTGRES, OnLine, Runtime, Service, require_service
from switchyard.settings import Settings

LABEL = "switchyard.orchestrator"
LABEL_BAKED = "switchyard.baked"
LABEL_ENVIRONMENT = "switchyard.environment"
LABEL_PROJECT = "switchyard.project"
DATA_VOLUME = "postgres-db-volume"
OVERLAY = "overlay"  # the driver of a network that spans machines
BROKER = "redis"  # the service between an orchestrator and its workers

WAREHOUSE_VOLUME = "warehouse-volume"
VALUE = "SWITCHYARD_VALUE_"  # before the name of a project's variable where Compose reads it, which may be one of `.env` as well
PGDATA = "/var/lib/postgresql/data"
PLATFORM = ["--python-platform", "linux", "--python-version", "3.12"]  # of the images
ANSWER = 20  # seconds after which an engine that hangs counts as one that is not started
REJECTED = (14, 15)  # how Compose ends where a file is missing or invalid
OLD_IMAGE = "set POSTGRES_IMAGE in .env to that version's image, invoke up, invoke backup."
MORE_MEMORY = "Raise the service's mem_limit in compose/, or close other programs, or give Docker Desktop more in Settings, Resources."

_COLUMNS = (
    "{{.ID}}",
    "{{.Names}}",
    '{{.Label "com.docker.compose.service"}}',
    f'{{{{.Label "{LABEL}"}}}}',
    f'{{{{.Label "{LABEL_BAKED}"}}}}',
    "{{.State}}",
    "{{.Status}}",
    f'{{{{.Label "{PROJECT}.working_dir"}}}}',
)


def postgres_file(settings: Settings) -> Path:
    """The compose file of the shared PostgreSQL."""
    return settings.root / "compose" / "docker-compose-postgres.yaml"


def compose(settings: Settings, file: Path, *args: str, override: Path | None = None) -> list[str]:
    """``docker compose`` on one compose file, with the checkout's settings."""
    files = ["-f", str(file)] + (["-f", str(override)] if override else [])
    return ["docker", "compose", "--env-file", str(settings.compose_env), *files, *args]


def build_argv(
    settings: Settings, file: Path, service: str, *, cache: bool = True, proxies: Iterable[str] = (), ssh: bool = False
) -> list[str]:
    """Build the image of one service; naming it leaves out the PostgreSQL that the file includes.

    ``proxies`` are names of variables: their values, in which there may be a password, reach Docker in the environment.
    Docker knows these arguments by itself, and keeps them out of the image and its history. ``ssh`` lets the build ask the
    caller's SSH agent, for packages from git.
    """
    options = [] if cache else ["--no-cache"]
    options += ["--ssh", "default"] if ssh else []
    for name in proxies:
        options += ["--build-arg", name]
    return compose(settings, file, "--progress", "plain", "build", *options, service)


def _up_argv(settings: Settings, file: Path, timeout: int, *args: str, override: Path | None = None) -> list[str]:
    """Start what a file names, and wait until it is healthy; what it needs was built, or pulled, before."""
    waiting = ["--wait", "--wait-timeout", str(timeout)]
    return compose(settings, file, "--progress", "plain", "up", "-d", "--no-build", *waiting, *args, override=override)


def up_postgres_argv(settings: Settings, timeout: int) -> list[str]:
    """Start PostgreSQL alone and wait until it is healthy; an orchestrator that runs stays untouched."""
    return _up_argv(settings, postgres_file(settings), timeout, POSTGRES)


def up_argv(settings: Settings, orchestrator: Orchestrator, timeout: int, override: Path | None = None) -> list[str]:
    """Start one orchestrator and wait until it is healthy.

    ``--remove-orphans`` is what makes it a switch: Compose stops and removes the services that this file does not name,
    the other orchestrator's, before it creates the new ones. PostgreSQL, which the file includes, keeps its container.
    """
    return _up_argv(settings, orchestrator.file, timeout, "--remove-orphans", override=override)


def down_argv(settings: Settings, file: Path) -> list[str]:
    """Remove every container and the network of the stack; volumes stay.

    With the orchestrator's own file Compose stops it before PostgreSQL, so that it can still write down how it ended.
    """
    return compose(settings, file, "--progress", "plain", "down", "--remove-orphans")


def logs_argv(settings: Settings, file: Path, *, follow: bool, tail: int, service: str | None) -> list[str]:
    """Show logs of the services of one compose file."""
    args = ["--follow"] if follow else []
    return compose(settings, file, "logs", "--tail", str(tail), *args, *([service] if service else []))


def exec_argv(
    settings: Settings, file: Path, service: str, command: Sequence[str], *, tty: bool = False, user: str | None = None
) -> list[str]:
    """Run a command in a service's container."""
    return compose(settings, file, "exec", *([] if tty else ["-T"]), *(["--user", user] if user else []), service, *command)


def psql(role: str, *args: str, database: str = bootstrap.WAREHOUSE) -> list[str]:
    """psql in the PostgreSQL container, over its local socket, which needs no password."""
    return ["psql", "--no-psqlrc", "--username", role, "--dbname", database, *args]


def ps_argv(settings: Settings) -> list[str]:
    """All containers of the stack, running or not, one tab-separated line each."""
    project = f"label={PROJECT}={settings.project}"
    return ["docker", "ps", "--all", "--no-trunc", "--filter", project, "--format", "\t".join(_COLUMNS)]


def image_name(settings: Settings, name: str) -> str:
    """The image of ``name``: what is built from ``docker/<name>``, or what a release has of it."""
    return settings.values.get(release.image_key(name)) or f"{settings.project}-{name}:local"


def volume_argv(settings: Settings) -> list[str]:
    """Make the data's volume as Compose would, with the checkout's label. In the file, Compose would ask about older volumes."""
    labels = {PROJECT: settings.project, "com.docker.compose.volume": DATA_VOLUME, CHECKOUT: str(settings.root)}
    options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    return ["docker", "volume", "create", *options, f"{settings.project}_{DATA_VOLUME}"]


def is_others(root: Path, folder: str) -> bool:
    """Whether ``folder`` is a checkout that exists on this machine and is not ``root``; one that was moved is nobody's any more."""
    if not folder:
        return False
    try:
        os.stat(os.path.join(folder, "tasks.py"))
        return not os.path.samefile(folder, root)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:  # in another account's home
        return True


def services(text: str, root: Path) -> tuple[list[Service], str]:
    """Read what `ps_argv` printed: the services of the checkout ``root``, and the folder of another one that has some."""
    found, other = [], ""
    for line in text.splitlines():
        id_, container, name, orchestrator, baked, state, status, folder = line.split("\t")
        if is_others(root, os.path.dirname(folder)):
            other = os.path.dirname(folder)
            continue
        health = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)", status)
        found.append(Service(id_[:12], container, name, orchestrator, bool(baked), state, health[1] if health else "", status))
    return sorted(found, key=lambda service: (service.orchestrator, service.name)), other


def embedded(project: Project) -> bool:
    """Whether the warehouse is a file that the stack keeps, as DuckDB's."""
    return "SWITCHYARD_WAREHOUSE_PATH" in str(project.output)


def override(orchestrator: Orchestrator, project: Project, *, baked: bool) -> str:
    """A compose override for every service that has the dbt project; an empty text where nothing is to be overridden.

    Args:
        orchestrator: the orchestrator.
        project: what the project needs is added: names of variables, whose values Compose takes from its own environment so that
            they are in no file; files that its profile names; and a volume for an embedded database.
        baked: whether the mount of the project is taken away.
    """
    volumes = [f"{str(path).replace('$', '$$')}:{projects.FILES}/{key}:ro" for key, path in project.files.items()]
    volumes += [f"{WAREHOUSE_VOLUME}:/opt/dbt/warehouse"] if embedded(project) else []
    variables = sorted(project.in_container())
    if not (baked or volumes or variables):
        return ""
    lines = ["services:"]
    for service, others in orchestrator.mounts.items():
        lines.append(f"  {service}:")
        if variables:
            lines.append(f"    environment: {json.dumps({key: f'${{{VALUE}{key}}}' for key in variables})}")
        if baked:
            lines += [f'    labels: {{{LABEL_BAKED}: "true"}}']
            kept = [*others, *volumes]
            lines.append(f"    volumes: !override {json.dumps(kept)}" if kept else "    volumes: !reset []")
        elif volumes:
            lines.append(f"    volumes: {json.dumps(volumes)}")
    if embedded(project):
        lines += ["volumes:", f"  {WAREHOUSE_VOLUME}:"]
    return "\n".join(lines) + "\n"


def rejected(file: Path, said: str = "") -> BadConfiguration:
    """The error where Compose cannot use a file."""
    return BadConfiguration(f"Compose rejects {file.name}.", said.strip(), "Correct the file or .env; git diff -- compose shows edits.")


class Docker:
    """The runtime over a Docker engine.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        runner: what starts programs.
        environ: where the project's variables are looked for.
    """

    name = "docker"
    beside: Runtime | None = None
    artifact = "image"
    cache_note = "  Docker keeps the cache of all builds, of other projects too: docker builder prune deletes it."
    project_place = "mounted read-only"

    def __init__(
        self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str] = os.environ
    ) -> None:
        if not plan.has_home():  # buildx writes into it
            runner = replace(runner, env={**runner.env, "HOME": str(settings.root / ".stack" / "home")})
        self.settings, self.orchestrators, self.runner, self.environ = settings, orchestrators, runner, environ

    @cached_property
    def project(self) -> Project:
        """The dbt project."""
        return projects.load(self.settings, self.environ)

    def require(self, *, starting: bool = True) -> str:
        """Make sure that an engine answers.

        Args:
            starting: ask for Compose's version as well, which takes longer than all that a look needs.

        Returns:
            The engine's version.

        Raises:
            EngineMissing: not installed, not started, or not permitted; each with its own message.
        """
        if shutil.which("docker") is None:
            raise checks.no_docker()
        found = self.runner.ask(["docker", "version", "--format", "{{.Server.Version}}"], seconds=ANSWER)
        if found.code:
            raise checks.no_answer(found.stderr.strip())
        if starting:
            version = self.runner.ask(["docker", "compose", "version", "--short"])
            checks.compose_version(version.code, version.stdout)
        return found.stdout.strip()

    def running(self) -> bool:
        """Whether any container of the stack is up."""
        return any(service.up for service in self.services())

    def services(self) -> list[Service]:
        """Every container of the stack, asked of the engine; none of another checkout with the same project name."""
        return self._asked()[0]

    def _asked(self) -> tuple[list[Service], str]:
        return services(self._checked(self.runner.ask(ps_argv(self.settings))).stdout, self.settings.root)

    def _own(self) -> str:
        """Make sure that no other checkout has a stack with this project name.

        Raises:
            BadConfiguration: one has.
        """
        own, other = self._asked()
        if not own and not other:
            folders = [self._volume_owner() or "", *self._image_owners()]
            other = next((folder for folder in folders if is_others(self.settings.root, folder)), "")
        if other and neighbours.is_new(self.settings.root):
            return f"{self.settings.project} is that of {other}; the first command chooses another name"
        if other:
            raise BadConfiguration(
                f"The Docker stack {self.settings.project} is that of another checkout.",
                f"{other} has its containers, its data or its images.",
                "Set COMPOSE_PROJECT_NAME in .env to another name; the ports must be others as well.",
            )
        return f"{self.settings.project} is this checkout's"

    def _volume_owner(self) -> str | None:
        """The checkout that the data's volume carries, or an empty text; None where there is no such volume."""
        template = f'{{{{.Name}}}}\t{{{{.Label "{CHECKOUT}"}}}}'
        argv = ["docker", "volume", "ls", "--filter", f"name=^{self._volume}$", "--format", template]
        name, _, folder = self._checked(self.runner.ask(argv)).stdout.strip().partition("\t")
        return folder if name else None

    def _image_owners(self) -> list[str]:
        """The checkouts that the stack's images carry."""
        names = self.images()
        template = f'{{{{index .Config.Labels "{CHECKOUT}"}}}}'
        argv = ["docker", "image", "inspect", "--format", template, *names]
        return self._checked(self.runner.ask(argv)).stdout.splitlines() if names else []

    @property
    def _volume(self) -> str:
        return f"{self.settings.project}_{DATA_VOLUME}"

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator whose containers are up, or None.

        Args:
            services: what `services` returned just now, to not ask again.
        """
        found = [service for service in (self.services() if services is None else services) if service.orchestrator in self.orchestrators]
        # One whose start was refused has left containers that never ran.
        runs = [service for service in found if service.state in ("running", "restarting")]
        return next((service.orchestrator for service in runs or found if service.up), None)

    def baked(self) -> bool:
        """Whether a container runs the dbt project of its image."""
        return any(service.baked for service in self.services())

    def starting(self) -> list[str]:
        """The services that have not become healthy yet since they were started."""
        return [service.name for service in self.services() if service.health == "starting"]

    def unsupported(self, target: Orchestrator) -> str:
        """Containers run everywhere."""
        return ""

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Build the images of ``names`` (``postgres`` or an orchestrator's name).

        Raises:
            BuildFailed: with the last lines that the build printed.
            ImageUnavailable: a base image cannot be pulled.
            BadConfiguration: a file in ``certs/`` is no certificate.
        """
        self._own()
        names = list(names)
        for name in names:
            if image := self._missing_broker(name):
                self._pull_image(image, "", on_line)
        if self.settings["RELEASE_FILE"]:
            self._pull(names, on_line)
            return
        if not self.runner.dry:
            self.settings.write_for_compose()
        certificates.check(self.settings.root)
        base_images = {key: self.settings[key] for key in fingerprints.BASE_IMAGE_KEYS}
        for name in names:
            service = POSTGRES if name == POSTGRES else self.orchestrators[name].built
            env = {"SWITCHYARD_ENVIRONMENT": self._environment(name), "SWITCHYARD_CHECKOUT": str(self.settings.root)}
            ssh = False
            if name != POSTGRES:
                env |= self._prepare(name, on_line)
                ssh = self.project.needs_ssh and "SSH_AUTH_SOCK" in os.environ
            argv = build_argv(self.settings, self._file(name), service, cache=cache, proxies=plan.proxies(os.environ), ssh=ssh)
            done = self.runner.follow(argv, on_line, env=env)
            if done.code:
                raise diagnosis.image(image_name(self.settings, name), done.stderr, base_images)
        self._prune()

    def _pull(self, names: Iterable[str], on_line: OnLine) -> None:
        """Pull the images of a release, and unpack the project that they hold, for the commands to read."""
        for name in names:
            image = image_name(self.settings, name)
            if not self._there(image):
                self._pull_image(image, "docker login, or ask who made the release", on_line)
            if name != POSTGRES and not self._unpacked and not self.runner.dry:
                self.unpack(image, projects.folder(self.settings))

    def _pull_image(self, image: str, hint: str, on_line: OnLine) -> None:
        done = self.runner.follow(["docker", "pull", image], on_line)
        if done.code:
            hint = hint or "Name an image in .env that can be had: REDIS_IMAGE=…; or do without workers: WORKERS=0"
            raise ImageUnavailable(f"The image {image} cannot be pulled.", done.stderr.strip(), hint)

    def _missing_broker(self, name: str) -> str:
        """The image of the broker, where the orchestrator needs one for its workers, and it is not here; else an empty text."""
        image = self.settings["REDIS_IMAGE"]
        needed = self.settings["WORKERS"] and name in self.orchestrators and BROKER in self.orchestrators[name].scaled
        return image if needed and not self._there(image) else ""

    @property
    def _unpacked(self) -> bool:
        """Whether the project of the release is there for the commands to read."""
        return (projects.folder(self.settings) / projects.FILE).exists()

    def unpack(self, image: str, place: Path) -> None:
        """Copy the dbt project of an image, with its profile, into a folder that there is not yet."""
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            copy = Path(folder, "project")
            self.copy_out(image, {"/opt/dbt/project": copy, "/opt/dbt/profiles/profiles.yml": copy / "profiles.yml"})
            copy.rename(place)

    def copy_out(self, image: str, paths: Mapping[str, Path]) -> None:
        """Copy files or folders of an image, in this order; nothing of it is started."""
        container = self._checked(self.runner.ask(["docker", "create", "--network", "none", image])).stdout.strip()
        try:
            for source, target in paths.items():
                self._checked(self.runner.ask(["docker", "cp", f"{container}:{source}", str(target)]))
        finally:
            self.runner.ask(["docker", "rm", container])

    def _there(self, image: str) -> bool:
        return self.runner.ask(["docker", "image", "inspect", "--format", "{{.Id}}", image]).code == 0

    def _prune(self) -> None:
        """Delete the checkout's images that a newer one has replaced, so that they have no name any more; not one in use."""
        self.runner.change(["docker", "image", "prune", "--force", "--filter", f"label={CHECKOUT}={self.settings.root}"])

    def _prepare(self, name: str, on_line: OnLine) -> dict[str, str]:
        """Put what the image of an orchestrator is made of into the build context, and return the variables of the build."""
        if not self.runner.dry:
            projects.stage(self.settings, self.project)
        environments.extra(self.settings, name, self.project, self.runner, PLATFORM, on_line)
        return {
            "SWITCHYARD_PROJECT": fingerprints.dbt_project(self.project),
            "SWITCHYARD_PROFILE": self.project.profile,
            "SWITCHYARD_TARGET": self.project.target,
            "SWITCHYARD_DBNAME": self.project.database,
            "SWITCHYARD_GIT": "1" if self.project.needs_git else "",
            "SWITCHYARD_BUILD_ENV": self.project.shell(),
        }

    def _environment(self, name: str) -> str:
        return fingerprints.environment(self.settings, name, None if name == POSTGRES else self.project)

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` whose image is missing or was built from other files than the checkout holds now.

        A model that was edited makes an image outdated only for a baked run: a mounted project is always current. A release's is
        outdated only where it is not here yet.
        """
        if self.settings["RELEASE_FILE"]:
            return [
                name
                for name in names
                if not self._there(image_name(self.settings, name))
                or not (self._unpacked or name == POSTGRES)
                or self._missing_broker(name)
            ]
        return [name for name in names if not self._current(name, baked)]

    def _current(self, name: str, baked: bool) -> bool:
        if self._missing_broker(name):
            return False
        image = image_name(self.settings, name)
        found = self.runner.ask(["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image])
        if found.code:
            return False
        labels = json.loads(found.stdout) or {}
        wanted = {LABEL_ENVIRONMENT: self._environment(name)}
        if baked and name != POSTGRES:
            wanted[LABEL_PROJECT] = fingerprints.dbt_project(self.project)
        return wanted.items() <= labels.items()

    def checks(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """What can be checked before one of ``targets`` is started."""
        keys = ("POSTGRES_PORT", *(target.ui_port for target in targets))
        return [
            Check("Folders", partial(checks.folders, self.settings.root, projects.folder(self.settings), native=False)),
            Check("Compose project", self._own),
            Check("dbt project", lambda: environments.describe(self.settings, self.project)),
            *([] if self.settings["RELEASE_FILE"] else [Check("dbt project's files", self._readable)]),
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
        """Check what can be checked before anything that runs is touched.

        Raises:
            BadConfiguration: Compose rejects the files, or one in ``certs/`` is no certificate.
            PortInUse: somebody else holds a port that the target publishes.
            OutOfMemory: there is too little memory for the target.
            NoSpace: the disk is nearly full.
            IncompatibleData: the volume is of another PostgreSQL version.
        """
        with ThreadPoolExecutor() as pool:  # most of the time goes into waiting for Docker's answers
            for checked in [pool.submit(check.run) for check in self.checks([target]) if not check.advice]:
                checked.result()

    def _readable(self) -> str:
        """Whether the containers' accounts, which are in the group root and no other, may read what is mounted."""
        if os.name == "posix" and self._machine[2]:
            files = list(project_files(self.project.folder))
            folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.project.folder)}
            for path in (*sorted(folders), *files):
                found = path.stat()
                wanted = 0o5 if path.is_dir() else 0o4
                if found.st_mode & wanted != wanted and not (found.st_gid == 0 and found.st_mode >> 3 & wanted == wanted):
                    raise BadConfiguration(
                        "The containers cannot read the dbt project.",
                        f"{path} has mode {stat.S_IMODE(found.st_mode):o}, and their accounts are not yours.",
                        f"chmod -R go+rX {shlex.quote(str(self.project.folder))}",
                    )
        return "readable by the containers"

    def _accepted(self, target: Orchestrator) -> str:
        checked = self.runner.ask(compose(self.settings, target.file, "config", "--quiet"))
        if checked.code:
            raise rejected(target.file, checked.stderr)
        return "valid"

    def _port(self, key: str) -> str:
        port = self.settings.port(key)
        holders = checks.publishers(port, self.runner)
        if not holders and ports.free(port):
            return f"{port} is free"
        if port in self._bound():
            return f"{port} is held by this stack"
        raise checks.port_in_use(key, port, holders)

    def _bound(self) -> set[int]:
        """The ports of the stack's running containers; unlike `docker ps`, also of one that fails and is just being started again."""
        names = [service.container for service in self.services() if service.state in ("running", "restarting")]
        template = "{{range .HostConfig.PortBindings}}{{range .}}{{println .HostPort}}{{end}}{{end}}"
        return set(map(int, self._ids(["docker", "inspect", "--format", template, *names]))) if names else set()

    @cached_property
    def _machine(self) -> tuple[int, Path, bool]:
        """The engine's memory in bytes, the folder of its data, and whether it is on this machine and not in a VM beside it."""
        found = self._checked(self.runner.ask(["docker", "info", "--format", "{{.MemTotal}}\t{{.DockerRootDir}}"])).stdout
        total, folder = found.strip().split("\t")
        return int(total), Path(folder), int(total) == psutil.virtual_memory().total and Path(folder).exists()

    def _memory(self, target: Orchestrator) -> str:
        total, _, here = self._machine
        name = self.active()
        active = self.orchestrators[name] if name else None
        available = psutil.virtual_memory().available if here else total
        freed = active.memory if active and here else 0
        needed = target.memory + target.worker_memory * int(self.settings["WORKERS"] or 0)
        return checks.memory(target.title, needed, freed, available // checks.MIB)

    def _network(self) -> str:
        """Whether the stack's network is, or can be made, as NETWORK in ``.env`` asks for."""
        name, driver = f"{self.settings.project}_default", self.settings["NETWORK"]
        if driver != OVERLAY:
            return driver
        there = self.runner.ask(["docker", "network", "inspect", "--format", "{{.Driver}}", name]).stdout.strip()
        if there and there != driver:
            raise BadConfiguration(
                f"The stack's network {name} is still a {there}.", f"NETWORK in .env is {driver}.", "invoke down, then the same command"
            )
        swarm = self.runner.ask(["docker", "info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}"])
        if swarm.stdout.strip() != "active true":
            raise BadConfiguration(
                "An overlay network needs a Docker swarm, and this machine is not a manager of one.",
                f"NETWORK in .env is {driver}.",
                "docker swarm init, or NETWORK=bridge in .env",
            )
        return driver

    def _disk(self) -> str:
        _, folder, here = self._machine
        return checks.disk(folder if here else self.settings.root)

    def _data(self) -> str:
        """Compare the volume's version with the image's, where both are there and no server has opened the volume already."""
        if any(service.name == POSTGRES for service in self.services()):
            return "in use"
        image = image_name(self.settings, POSTGRES)
        if not self.has_data():
            return "none yet"
        if not self._there(image):
            return "not looked at: the server's image is not here yet"
        script = f"cat {PGDATA}/PG_VERSION 2>/dev/null; echo; postgres --version"
        argv = ["docker", "run", "--rm", "--network", "none", "--volume", f"{self._volume}:{PGDATA}:ro", "--entrypoint", "sh"]
        found, _, program = self._checked(self.runner.ask([*argv, image, "-c", script])).stdout.partition("\n")
        major = re.search(r" (\d+)", program)
        return checks.same_major(found.strip(), major[1] if major else "", OLD_IMAGE)

    def _sizes(self) -> str:
        if not any(service.name == POSTGRES and service.health == "healthy" for service in self.services()):
            return "not known while PostgreSQL is down"
        command = psql("postgres", "--tuples-only", "--no-align", "--command", bootstrap.SIZES)
        argv = exec_argv(self.settings, postgres_file(self.settings), POSTGRES, command, user="postgres")
        return self._checked(self.runner.ask(argv)).stdout.strip()

    def _images(self, targets: Sequence[Orchestrator]) -> str:
        outdated = self.outdated([POSTGRES, *(target.name for target in targets)], baked=False)
        return f"the next `invoke up` builds what it needs of {', '.join(outdated)}" if outdated else "current"

    def _buildx(self) -> str:
        found = self.runner.ask(["docker", "buildx", "version"])
        if found.code:
            raise EngineMissing("Docker has no buildx plugin.", "Images are built with it.", "Install the package docker-buildx-plugin.")
        return "there"

    def _leftovers(self) -> str:
        known = ("", *self.orchestrators)
        strangers = [service.container for service in self.services() if service.orchestrator not in known]
        if strangers:
            raise StackError(f"Containers of an orchestrator that has no compose file: {', '.join(strangers)}.", "", "invoke down")
        return "none"

    def start_postgres(self, timeout: int, on_line: OnLine) -> None:
        """Start PostgreSQL when it is not healthy yet, and bring roles and databases up to date.

        Raises:
            NotHealthy: it did not become healthy within ``timeout`` seconds, or rejected the bootstrap.
        """
        running = any(service.name == POSTGRES and service.health == "healthy" for service in self.services())
        if not running:
            self._own()
            if not self.has_data():
                self._checked(self.runner.change(volume_argv(self.settings)))
            if not self.runner.dry:
                self._note.touch()
            self._up(up_postgres_argv(self.settings, timeout), "PostgreSQL", timeout, on_line)
        script = bootstrap.sql(self.settings, self.orchestrators.values(), projects.database(self.settings))
        argv = exec_argv(self.settings, postgres_file(self.settings), POSTGRES, psql("postgres", "--quiet"), user="postgres")
        done = self.runner.change(argv, stdin=script)
        if done.code:
            raise NotHealthy(
                "PostgreSQL rejected the bootstrap of roles and databases.", done.stderr.strip(), "invoke logs --service postgres"
            )

    def start(self, target: Orchestrator, *, baked: bool, timeout: int, on_line: OnLine) -> None:
        """Replace whatever orchestrator runs by ``target``, and wait until it is healthy.

        Raises:
            NotHealthy: a service ended, or is not healthy; with the last log lines.
            StillStarting: all is well so far, but not done after ``timeout`` seconds; what was started continues.
        """
        file = None
        if text := override(target, self.project, baked=baked or bool(self.settings["RELEASE_FILE"])):
            file = self.settings.root / ".stack" / f"override-{target.name}.yaml"
            if not self.runner.dry:
                file.parent.mkdir(mode=0o700, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        values = {VALUE + key: value for key, value in self.project.in_container().items()}
        self._up(up_argv(self.settings, target, timeout, file), target.title, timeout, on_line, values)

    def _up(self, argv: list[str], title: str, timeout: int, on_line: OnLine, env: Mapping[str, str] | None = None) -> None:
        if not self.runner.dry:
            self.settings.write_for_compose()
        began, started = time.monotonic(), int(time.time())
        while True:
            # Compose counts its time-out from when the last container was started, which may wait for another's health.
            done = self.runner.follow(argv, on_line, env=env, seconds=max(1, timeout - (time.monotonic() - began)))
            if done.code == 0:
                return
            if done.code in REJECTED:
                raise rejected(Path(argv[argv.index("-f") + 1]), done.stderr)
            # It also ends at the first health check that gives up, which on a slow machine is sooner than was asked for.
            slow = "is unhealthy" in done.stderr and self._on_their_way(or_slow=True)
            if not slow or time.monotonic() - began >= timeout:
                break
            time.sleep(1)
        if time.monotonic() - began >= timeout and self._on_their_way():
            raise still_starting(title, timeout)
        sick = [service for service in self.services() if service.health != "healthy"]
        why = [line.strip() for line in done.stderr.splitlines()[-1:]]
        for service in sick:
            said = self.runner.ask(["docker", "logs", "--tail", "5000", service.container])
            state = f"{service.name} is {service.state} {service.health}".rstrip()
            why += diagnosis.last_lines(state, said.stdout + said.stderr, self._kept(service.name, said.stdout + said.stderr))
        raise diagnosis.start_failure(title, "\n".join(why), killed=self._killed(started), more_memory=MORE_MEMORY, old_programs=OLD_IMAGE)

    def _kept(self, service: str, said: str) -> Path:
        """Keep what a service that does not start has printed: rolling back removes its container."""
        path = self.settings.root / ".stack" / "logs" / f"{service}.log"
        with contextlib.suppress(OSError):  # the disk may be full, and that is not why it does not start
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(said, encoding="utf-8")
        return path

    def _killed(self, since: int) -> list[str]:
        """The services of which the system has killed a process for want of memory; a container that restarts forgets it."""
        filters = ["type=container", "event=oom", f"label={PROJECT}={self.settings.project}"]
        argv = ["docker", "events", "--since", str(since), "--until", str(int(time.time()) + 1)]
        template = '{{index .Actor.Attributes "com.docker.compose.service"}}'
        return sorted(set(self._ids([*argv, *(word for text in filters for word in ("--filter", text)), "--format", template])))

    def _on_their_way(self, *, or_slow: bool = False) -> bool:
        """Whether every container is healthy or may become so: none ended or was started again, nor, but for ``or_slow``, is unhealthy."""
        names = [service.container for service in self.services()]
        argv = ["docker", "inspect", "--format", "{{.State.Status}} {{.RestartCount}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"]
        found = self.runner.ask([*argv, *names])
        return bool(names) and all(
            line.split()[0] in ("created", "running") and (or_slow or "unhealthy" not in line) and line.split()[1] == "0"
            for line in found.stdout.splitlines()
        )

    def stop_orchestrator(self, on_line: OnLine) -> None:
        """Stop and remove the orchestrator's containers; PostgreSQL's stays as it is."""
        found = [service for service in self.services() if service.orchestrator]
        groups = stop_order([service.name for service in found], self.orchestrators.values())
        argvs = [["docker", "stop", *(service.container for service in found if service.name in group)] for group in groups]
        if found:
            argvs.append(["docker", "rm", "--force", *(service.container for service in found)])
        for argv in argvs:
            done = self.runner.follow(argv, on_line)
            if done.code:
                raise StackError("The orchestrator could not be stopped.", done.stderr, "invoke status")

    def down(self, on_line: OnLine) -> None:
        """Remove every container and the network of the stack; data stays in the volume."""
        self._own()
        done = self.runner.follow(down_argv(self.settings, self._file(self.active() or POSTGRES)), on_line)
        if done.code:
            raise StackError("The stack could not be taken down.", done.stderr, "invoke status")

    def volumes(self) -> list[str]:
        """The names of the stack's volumes."""
        return self._ids(["docker", "volume", "ls", "--quiet", "--filter", f"label={PROJECT}={self.settings.project}"])

    def remove_volumes(self, names: Sequence[str]) -> None:
        """Delete the volumes called ``names`` with all their data."""
        if names:
            self._checked(self.runner.change(["docker", "volume", "rm", *names]))
        if not self.runner.dry and not self.has_data():
            self._note.unlink(missing_ok=True)

    def images(self) -> list[str]:
        """The names of the stack's images that exist; those of a release are not the stack's own."""
        names = [f"{self.settings.project}-{name}:local" for name in (POSTGRES, *self.orchestrators)]
        filters = [word for name in names for word in ("--filter", f"reference={name}")]
        return self._ids(["docker", "image", "ls", *filters, "--format", "{{.Repository}}:{{.Tag}}"])

    def remove_images(self, names: Sequence[str]) -> None:
        """Delete the images called ``names``."""
        if names:
            self._checked(self.runner.change(["docker", "image", "rm", *names]))
            self._prune()

    def left_data(self) -> bool:
        """Whether a start has noted that the data is in a volume: while the engine is stopped, nothing else shows it."""
        return self._note.exists()

    @property
    def _note(self) -> Path:
        return self.settings.root / ".stack" / "data-in-docker"

    def has_data(self) -> bool:
        """Whether PostgreSQL was ever started: whether its volume is there."""
        folder = self._volume_owner()
        return folder is not None and not is_others(self.settings.root, folder)

    def client(self, program: str, *args: str) -> tuple[list[str], dict[str, str]]:
        """A program of PostgreSQL's as the role ``dbt``, in the container, over its local socket, which needs no password."""
        command = [program, "--username", bootstrap.DBT_ROLE, *args]
        return exec_argv(self.settings, postgres_file(self.settings), POSTGRES, command, user="postgres"), {}

    def trigger(self, orchestrator: Orchestrator, words: Sequence[str], on_line: OnLine) -> Result:
        """Call ``run_job.py`` with ``words`` in the orchestrator's container, handing over each line of the run protocol."""
        argv = exec_argv(self.settings, orchestrator.file, orchestrator.service, [*orchestrator.run, *words])
        return self.runner.follow(argv, on_line, errors_apart=True)

    def dbt(self, orchestrator: Orchestrator, args: Sequence[str]) -> int:
        """Run a dbt command on this terminal, in the container that runs dbt."""
        command = [*projects.TYPED, *args]
        return self.runner.hand_over(exec_argv(self.settings, orchestrator.file, orchestrator.dbt, command, tty=sys.stdin.isatty()))

    def typed_file(self, orchestrator: Orchestrator, name: str) -> str:
        """A text file that a command of `dbt` has left in its target folder."""
        argv = exec_argv(self.settings, orchestrator.file, orchestrator.dbt, ["cat", f"/opt/dbt/target/typed/{name}"])
        return self._checked(self.runner.ask(argv)).stdout

    def logs(self, active: str | None, *, follow: bool, tail: int, service: str | None) -> int:
        """Show the services' logs on this terminal."""
        self._own()
        known = self.orchestrators[active] if active else None
        require_service(service, [POSTGRES, *(known.services if known else []), *(known.scaled if known else [])])
        file = self._file(active or POSTGRES)
        argv = logs_argv(self.settings, file, follow=follow, tail=tail, service=service)
        code = self.runner.hand_over(argv) if sys.stdout.isatty() else self.runner.follow(argv, console.plain).code
        if code in REJECTED:
            raise rejected(file)
        return code

    def sql(self, query: str | None, *, tty: bool) -> int:
        """Run one statement, or an interactive psql, in the warehouse as the role ``dbt``.

        Raises:
            NothingActive: PostgreSQL is not running.
        """
        if not any(service.name == POSTGRES and service.up for service in self.services()):
            raise NothingActive("PostgreSQL is not running.", "`sql` asks the stack's own server.", "invoke up")
        args = ["--set", "ON_ERROR_STOP=1"] + ([] if query is None else ["--pset", "pager=off", "--command", query])
        command = psql(bootstrap.DBT_ROLE, *args, database=projects.database(self.settings))
        argv = exec_argv(self.settings, postgres_file(self.settings), POSTGRES, command, tty=tty, user="postgres")
        return self.runner.hand_over(argv)

    def _file(self, name: str) -> Path:
        return postgres_file(self.settings) if name == POSTGRES else self.orchestrators[name].file

    def _ids(self, argv: list[str]) -> list[str]:
        return self._checked(self.runner.ask(argv)).stdout.split()

    def _checked(self, result: Result) -> Result:
        if result.code:
            raise StackError("Docker refused a command.", result.stderr.strip(), "invoke --echo status")
        return result
