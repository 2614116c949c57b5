"""Queries to a Docker engine about the stack of one checkout."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import psutil
import yaml

from switchyard import caller, neighbours
from switchyard import project as projects
from switchyard.errors import BadConfiguration, StackError
from switchyard.neighbours import CHECKOUT_LABEL, COMPOSE_PROJECT_LABEL
from switchyard.orchestrators import Orchestrator
from switchyard.project import Project
from switchyard.runner import Result, Runner
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.override import WAREHOUSE_VOLUME
from switchyard.runtimes.runtime import POSTGRES, Service
from switchyard.settings import Settings


def is_others(root: Path, folder: str) -> bool:
    """Whether ``folder`` is a checkout that exists on this machine and is not ``root``; a checkout that was moved does not count."""
    if not folder:
        return False
    try:
        os.stat(os.path.join(folder, "tasks.py"))
        return not os.path.samefile(folder, root)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:  # in another account's home
        return True


def is_foreign(folder: str) -> bool:
    """Whether ``folder``, from a container's label, exists on this machine but has no compose files of a checkout."""
    return os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "docker-compose-postgres.yaml"))


def services(text: str, root: Path) -> tuple[list[Service], str]:
    """Parse the output of `argv.ps`: the services of the checkout ``root``, and the folder of another stack with the same name, if any."""
    found, other = [], ""
    for line in text.splitlines():
        id_, container, name, orchestrator, baked, state, status, folder = line.split("\t")
        checkout, foreign = os.path.dirname(folder), is_foreign(folder)
        if foreign or is_others(root, checkout):
            other = folder if foreign else checkout
            continue
        health = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)", status)
        found.append(Service(id_[:12], container, name, orchestrator, bool(baked), state, health[1] if health else "", status))
    return sorted(found, key=lambda service: (service.orchestrator, service.name)), other


def rejected(file: Path, stderr: str = "") -> BadConfiguration:
    """The error where Compose cannot use a file."""
    return BadConfiguration(f"Compose rejects {file.name}.", stderr.strip(), "Correct the file or .env; git diff -- compose shows edits.")


def _home(root: Path) -> dict[str, str]:
    """The variables that keep Docker from writing into a home that is not writable, while it still reads sign-ins and plugins there."""
    if caller.has_home():
        return {}
    home, config = root / ".stack" / "home", os.path.expanduser("~/.docker")
    found = {"HOME": str(home)}
    if "DOCKER_CONFIG" not in os.environ and os.access(config, os.R_OK | os.X_OK):
        found |= {"DOCKER_CONFIG": config, "BUILDX_CONFIG": str(home / ".docker" / "buildx")}
    return found


class Engine:
    """The engine, as far as it concerns one checkout.

    Args:
        settings: the checkout's settings.
        orchestrators: every known orchestrator.
        runner: what starts programs.
        environ: where to look for the project's variables.
    """

    def __init__(
        self, settings: Settings, orchestrators: Mapping[str, Orchestrator], runner: Runner, environ: Mapping[str, str] = os.environ
    ) -> None:
        runner = replace(runner, env={**runner.env, **_home(settings.root)})
        self.settings, self.orchestrators, self.runner, self.environ = settings, orchestrators, runner, environ

    @cached_property
    def project(self) -> Project:
        """The dbt project."""
        return projects.load(self.settings, self.environ)

    def services(self) -> list[Service]:
        """Every container of the stack, as the engine reports it; none of another checkout with the same project name."""
        return self.asked()[0]

    def asked(self) -> tuple[list[Service], str]:
        """The same, and the folder of another stack with this project name, of a checkout or of anything that Compose runs."""
        return services(self.checked(self.runner.ask(argv.ps(self.settings))).stdout, self.settings.root)

    def active(self, services: Iterable[Service] | None = None) -> str | None:
        """The known orchestrator whose containers are up, or None.

        Args:
            services: the result of a call of `services` just before, to avoid another.
        """
        found = [service for service in (self.services() if services is None else services) if service.orchestrator in self.orchestrators]
        # An orchestrator whose start was refused has containers that never ran.
        runs = [service for service in found if service.state in ("running", "restarting")]
        return next((service.orchestrator for service in runs or found if service.up), None)

    def own(self) -> str:
        """Make sure that nothing else on this machine has this project name.

        Raises:
            BadConfiguration: another stack has it.
        """
        own, other = self.asked()
        if not own and not other:
            folders = [self.volume_owner() or "", *self.image_owners()]
            other = next((folder for folder in folders if is_others(self.settings.root, folder)), "")
            volumes = self.volumes()
            strange = sorted(set(volumes) - self.declared())
            if not other and strange and self.volume not in volumes:
                other = f"another Compose application, with the volume {strange[0]},"
        if other and neighbours.is_unnamed(self.settings, self.environ):
            return f"{self.settings.compose_name} belongs to {other}; the first command on Docker chooses another name"
        if other:
            raise BadConfiguration(
                f"The Docker stack {self.settings.compose_name} is not this checkout's.",
                f"{other[0].upper()}{other[1:]} has its containers, its data or its images.",
                "Set COMPOSE_PROJECT_NAME in .env to another name; the ports must be others as well.",
            )
        return f"{self.settings.compose_name} is this checkout's"

    def volume_owner(self) -> str | None:
        """The checkout in the label of the data's volume, or an empty text; None where there is no such volume."""
        template = f'{{{{.Name}}}}\t{{{{.Label "{CHECKOUT_LABEL}"}}}}'
        command = ["docker", "volume", "ls", "--filter", f"name=^{self.volume}$", "--format", template]
        name, _, folder = self.checked(self.runner.ask(command)).stdout.strip().partition("\t")
        return folder if name else None

    def image_owners(self) -> list[str]:
        """The checkouts in the labels of the stack's images."""
        names = self.images()
        template = f'{{{{index .Config.Labels "{CHECKOUT_LABEL}"}}}}'
        command = ["docker", "image", "inspect", "--format", template, *names]
        return self.checked(self.runner.ask(command)).stdout.splitlines() if names else []

    @property
    def volume(self) -> str:
        """The name of the data's volume."""
        return f"{self.settings.compose_name}_{argv.DATA_VOLUME}"

    def declared(self) -> set[str]:
        """The names of the volumes that the compose files declare."""
        texts = (self.file(name).read_text(encoding="utf-8") for name in (POSTGRES, *self.orchestrators))
        names = {volume for text in texts for volume in yaml.safe_load(text).get("volumes") or {}} | {WAREHOUSE_VOLUME}
        return {f"{self.settings.compose_name}_{name}" for name in names}

    def volumes(self) -> list[str]:
        """The names of the volumes labelled with the stack's project name."""
        return self.ids(["docker", "volume", "ls", "--quiet", "--filter", f"label={COMPOSE_PROJECT_LABEL}={self.settings.compose_name}"])

    def images(self) -> list[str]:
        """The names of the stack's images that exist, without those of a release."""
        names = [f"{self.settings.compose_name}-{name}:local" for name in (POSTGRES, *self.orchestrators)]
        filters = [word for name in names for word in ("--filter", f"reference={name}")]
        return self.ids(["docker", "image", "ls", *filters, "--format", "{{.Repository}}:{{.Tag}}"])

    def has(self, image: str) -> bool:
        """Whether the engine has the image."""
        return self.runner.ask(["docker", "image", "inspect", "--format", "{{.Id}}", image]).code == 0

    def network(self) -> str:
        """The driver of the stack's network; empty if there is none."""
        name = f"{self.settings.compose_name}_default"
        return self.runner.ask(["docker", "network", "inspect", "--format", "{{.Driver}}", name]).stdout.strip()

    def bound(self) -> set[int]:
        """The ports of the stack's running containers; unlike `docker ps`, also those of a container that fails and is being restarted."""
        names = [service.container for service in self.services() if service.state in ("running", "restarting")]
        template = "{{range .HostConfig.PortBindings}}{{range .}}{{println .HostPort}}{{end}}{{end}}"
        return set(map(int, self.ids(["docker", "inspect", "--format", template, *names]))) if names else set()

    @cached_property
    def machine(self) -> tuple[int, Path, bool]:
        """The engine's memory in bytes, the folder of its data, and whether it runs on this machine itself, not in a VM."""
        found = self.checked(self.runner.ask(["docker", "info", "--format", "{{.MemTotal}}\t{{.DockerRootDir}}"])).stdout
        total, folder = found.strip().split("\t")
        return int(total), Path(folder), int(total) == psutil.virtual_memory().total and os.path.exists(folder)

    def killed(self, since: int) -> list[str]:
        """The services with a process that ran out of memory and was killed; a container loses this state when it restarts."""
        filters = ["type=container", "event=oom", f"label={COMPOSE_PROJECT_LABEL}={self.settings.compose_name}"]
        command = ["docker", "events", "--since", str(since), "--until", str(int(time.time()) + 1)]
        template = '{{index .Actor.Attributes "com.docker.compose.service"}}'
        return sorted(set(self.ids([*command, *(word for text in filters for word in ("--filter", text)), "--format", template])))

    def on_their_way(self, *, or_slow: bool = False) -> bool:
        """Whether every container is healthy or may become so: none ended or restarted, nor (without ``or_slow``) is unhealthy."""
        names = [service.container for service in self.services()]
        command = [
            "docker",
            "inspect",
            "--format",
            "{{.State.Status}} {{.RestartCount}} {{if .State.Health}}{{.State.Health.Status}}{{end}}",
        ]
        found = self.runner.ask([*command, *names])
        return bool(names) and all(
            line.split()[0] in ("created", "running") and (or_slow or "unhealthy" not in line) and line.split()[1] == "0"
            for line in found.stdout.splitlines()
        )

    def file(self, name: str) -> Path:
        """The compose file of PostgreSQL, or of an orchestrator."""
        return argv.postgres_file(self.settings) if name == POSTGRES else self.orchestrators[name].file

    def ids(self, command: list[str]) -> list[str]:
        """The words in the engine's answer to a command."""
        return self.checked(self.runner.ask(command)).stdout.split()

    def checked(self, result: Result) -> Result:
        """The result of a command, if the engine has accepted it.

        Raises:
            StackError: the engine has refused it.
        """
        if result.code:
            raise StackError("Docker refused a command.", result.stderr.strip(), "invoke --echo status")
        return result
