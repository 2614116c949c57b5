"""The orchestrators, read from their compose files: no list of names exists in Python."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from switchyard.errors import BadConfiguration, BadUsage

PROJECT_MOUNT = ":/opt/dbt/project:ro"  # the end of the volume with the dbt project; a service with it runs dbt, or shows the project
NATIVE = "native.yaml"  # in docker/<name>: the processes of the native runtime
_PREFIX = "docker-compose-"
# libyaml's loader is ten times faster, and every command reads these files first. PyYAML's wheels include it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class ProcessSpec:
    """What the native runtime starts instead of one container.

    Attributes:
        service: the compose service's name.
        command: the program and its arguments.
        health: a command that exits 0 when the service is healthy.
        container: the environment of the service's container.
        environment: variables that override those of the container.
        after: the services that must be healthy before this one starts.
    """

    service: str
    command: tuple[str, ...]
    health: tuple[str, ...]
    container: Mapping[str, str]
    environment: Mapping[str, str]
    after: tuple[str, ...]


@dataclass(frozen=True)
class NativeBlock:
    """How the orchestrator runs without Docker, from ``docker/<name>/native.yaml``; see docs/native.md.

    Attributes:
        requirements: lock files in ``docker/<name>``, one for each environment; the programs of the first come first on the PATH.
        home: files in ``docker/<name>`` that the product needs in its home folder.
        unsupported: by platform (as in ``sys.platform``), why it cannot run there.
        environment: for every process, and for the commands of a build.
        run: the command that triggers and follows a job; the job's name is appended.
        processes: in the order in which they start.
    """

    requirements: tuple[str, ...]
    home: tuple[str, ...]
    unsupported: Mapping[str, str]
    environment: Mapping[str, str]
    run: tuple[str, ...]
    processes: tuple[ProcessSpec, ...]


@dataclass(frozen=True)
class Orchestrator:
    """One orchestrator, as its compose file describes it.

    Attributes:
        name: what a person types; the file is ``compose/docker-compose-<name>.yaml``.
        title: what a person reads.
        file: the compose file.
        ui_port: the ``.env`` key of the published port.
        ui_path: the path of the start page.
        login_user: the name for the sign-in, or None where the product has no sign-in.
        login_key: the ``.env`` key of the password, or None.
        database: the metadata database, and the role that owns it; None for a product that stores its metadata elsewhere.
        service: the service in which ``run`` is executed.
        dbt: the service in which `invoke dbt` runs a command.
        run: the command that triggers and follows a job; the job's name is appended.
        built: the service whose ``build`` section makes the image of all its services.
        mounts: for each service that mounts the dbt project, its *other* volumes.
        native: how it runs without Docker, or None where it cannot.
        services: the names of its services, without ``scaled``.
        scaled: the names of the services that WORKERS in ``.env`` adds.
        worker: the service whose replicas WORKERS counts; empty where there is none.
        memory: MiB that its services and PostgreSQL take when they are up; 0 where it was not measured.
        worker_memory: MiB that each worker takes.
        after: for each service, the other services that it waits for at its start.
        login_in_one: whether the sign-in page has one field, for ``user:password``.
    """

    name: str
    title: str
    file: Path
    ui_port: str
    ui_path: str
    login_user: str | None
    login_key: str | None
    database: str | None
    service: str
    dbt: str
    run: tuple[str, ...]
    built: str
    mounts: Mapping[str, tuple[str, ...]]
    native: NativeBlock | None = None
    services: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    worker: str = ""
    memory: int = 0
    worker_memory: int = 0
    after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    login_in_one: bool = False

    def memory_with(self, workers: int) -> int:
        """MiB that its services and PostgreSQL take with ``workers`` workers; `memory` includes a worker that exists without WORKERS."""
        return self.memory + self.worker_memory * max(0, workers - (self.worker in self.services))

    @property
    def database_key(self) -> str:
        """The ``.env`` key of the metadata role's password, where it has a database."""
        return f"{self.name.upper()}_DB_PASSWORD"

    @property
    def keys(self) -> list[str]:
        """The ``.env`` keys without which it cannot start."""
        return [key for key in (self.ui_port, self.login_key, self.database and self.database_key) if key]

    @property
    def native_block(self) -> NativeBlock:
        """How it runs without Docker, for code that needs this.

        Raises:
            BadConfiguration: it has no ``native.yaml``.
        """
        if self.native is None:
            raise BadConfiguration(
                f"{self.title} cannot run without Docker.", f"There is no docker/{self.name}/{NATIVE}.", f"git status -- docker/{self.name}"
            )
        return self.native

    def process(self, service: str) -> ProcessSpec:
        """What the native runtime starts instead of the container of ``service``."""
        return next(process for process in self.native_block.processes if process.service == service)

    def url(self, settings: Mapping[str, str]) -> str:
        """The address of the start page."""
        return f"http://localhost:{settings[self.ui_port]}{self.ui_path}"

    @property
    def sign_in(self) -> str:
        """How to sign in on its page, and where the password is."""
        if not self.login_user:
            return "none (the product has no sign-in)"
        user = f"{self.login_user}:<password> in one field" if self.login_in_one else f"user {self.login_user}"
        return f"{user}, password: {self.login_key} in .env"

    def access(self, settings: Mapping[str, str], database: str | None) -> list[tuple[str, str]]:
        """The addresses and how to sign in, as labels and values; never a password itself.

        Args:
            settings: with the ports that it was started with.
            database: that of the dbt project; None where its data is in another warehouse.
        """
        found = [(self.title, self.url(settings)), ("Sign-in", self.sign_in)]
        if database:
            where = f"localhost:{settings['POSTGRES_PORT']}, database {database}, user dbt, password: DBT_PASSWORD in .env"
            found.append(("PostgreSQL", where))
        return found


def load_all(root: Path) -> dict[str, Orchestrator]:
    """Every compose file that has an ``x-orchestrator`` block, by name, in alphabetical order.

    Raises:
        BadConfiguration: a compose file is not YAML, or lacks a key.
    """
    found = (load(root, file) for file in files(root))
    return {orchestrator.name: orchestrator for orchestrator in found if orchestrator}


def require_keys(orchestrators: Mapping[str, Orchestrator], settings: Collection[str]) -> None:
    """Make sure that each orchestrator's `keys` are among the ``settings``.

    Raises:
        BadConfiguration: one is not; the message has the missing line.
    """
    for orchestrator in orchestrators.values():
        for key in orchestrator.keys:
            if key not in settings:
                line = f"{key}=" + ("1234" if key == orchestrator.ui_port else "<password>")
                raise BadConfiguration(
                    f"{orchestrator.title} needs the setting {key}, which .env.example does not have.",
                    f"compose/{orchestrator.file.name} uses it.",
                    f"Add a line to .env.example: {line}",
                )


def files(root: Path) -> list[Path]:
    """The compose files of the checkout, including PostgreSQL's."""
    return sorted((root / "compose").glob(f"{_PREFIX}*.yaml"))


def load(root: Path, file: Path) -> Orchestrator | None:
    """The orchestrator in one compose file, with its ``native.yaml``; None without an ``x-orchestrator`` block.

    Raises:
        BadConfiguration: a file is not YAML, or lacks a key.
    """
    name = file.stem.removeprefix(_PREFIX)
    with _read(root, file) as content:
        block = content.get("x-orchestrator")
        if block is None:
            return None
        services = content["services"]
        found = _orchestrator(name, file, block, services)
    native = root / "docker" / name / NATIVE
    if not native.exists():
        return found
    with _read(root, native) as content:
        return replace(found, native=_native(content, services))


@contextmanager
def _read(root: Path, file: Path) -> Iterator[dict[str, Any]]:
    """The content of a YAML file; errors in the body of the ``with`` count as errors of the file.

    Raises:
        BadConfiguration: it is not YAML, or lacks a key.
    """
    try:
        yield yaml.load(file.read_text(encoding="utf-8"), _LOADER) or {}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        reason = f"it lacks the key {error}" if isinstance(error, KeyError) else str(error)
        name = file.relative_to(root).as_posix()
        raise BadConfiguration(f"{name} cannot be read.", reason, f"git diff -- {name}") from None


def _orchestrator(name: str, file: Path, block: dict[str, Any], services: dict[str, Any]) -> Orchestrator:
    login = block.get("login") or {}
    mounts = {}
    for service, body in services.items():
        volumes = body.get("volumes", [])
        if not all(isinstance(volume, str) for volume in volumes):
            raise ValueError(f"{service} has a volume in Compose's long form; write it as source:target")
        others = tuple(volume for volume in volumes if not volume.endswith(PROJECT_MOUNT))
        if len(others) < len(volumes):
            mounts[service] = others
    scaled = [name for name, body in services.items() if name != block["dbt"] and "deploy" in body]
    built = [service for service, body in services.items() if "build" in body]
    if len(built) != 1:
        raise KeyError("build (in exactly one service)")
    return Orchestrator(
        name=name,
        title=block["title"],
        file=file,
        ui_port=block["ui_port"],
        ui_path=block["ui_path"],
        login_user=login.get("user"),
        login_key=login.get("password"),
        login_in_one=login.get("in_one_field", False),
        database=block.get("database"),
        service=block["service"],
        dbt=block["dbt"],
        run=tuple(block["run"]),
        built=built[0],
        mounts=mounts,
        services=tuple(service for service in services if service not in scaled),
        scaled=tuple(scaled),
        worker=next((name for name, body in services.items() if "deploy" in body and "extends" not in body), ""),
        memory=int(block.get("memory", 0)),
        worker_memory=int(block.get("worker_memory", 0)),
        after={name: tuple(other for other in body.get("depends_on", {}) if other in services) for name, body in services.items()},
    )


def _native(block: dict[str, Any], services: dict[str, Any]) -> NativeBlock:
    return NativeBlock(
        requirements=tuple(block["requirements"]),
        home=tuple(block.get("home", [])),
        unsupported=block.get("unsupported", {}),
        environment=block.get("environment", {}),
        run=tuple(block["run"]),
        processes=tuple(
            ProcessSpec(
                service=name,
                command=tuple(process["command"]),
                health=tuple(process["health"]),
                container=services[name].get("environment", {}),
                environment={**block.get("environment", {}), **process.get("environment", {})},
                # Every service depends on PostgreSQL, which is up before an orchestrator starts, so it is left out.
                after=tuple(
                    other
                    for other, needed in services[name].get("depends_on", {}).items()
                    if other in block["services"] and needed["condition"] == "service_healthy"
                ),
            )
            for name, process in block["services"].items()
        ),
    )


def stop_order(services: Sequence[str], known: Iterable[Orchestrator]) -> list[list[str]]:
    """Groups of services to stop one after the other: a service stops before those that it waited for at its start.

    Prefect's worker, for example, signs off at the server; without an answer it would wait until it is killed.

    Args:
        services: those to stop, of any orchestrator, also those whose compose file was deleted.
        known: every known orchestrator.
    """
    after = {service: others for orchestrator in known for service, others in orchestrator.after.items()}
    groups, left = [], list(services)
    while left:
        needed = {other for service in left for other in after.get(service, ())}
        group = [service for service in left if service not in needed] or left
        groups.append(group)
        left = [service for service in left if service not in group]
    return groups


def find(orchestrators: Mapping[str, Orchestrator], name: str, setting: str = "") -> Orchestrator:
    """The orchestrator called ``name``, which is from the command line or is the value of ``setting``.

    Raises:
        BadUsage: there is none; the message has the most similar name.
    """
    if name in orchestrators:
        return orchestrators[name]
    if name.startswith("-"):
        raise BadUsage(
            f"{name!r} is a flag, not the name of an orchestrator.",
            "Invoke's own flags go before the task name.",
            f"invoke {name} switch {next(iter(orchestrators))}",
        )
    near = difflib.get_close_matches(name.lower(), orchestrators, n=1)
    known = ", ".join(orchestrators)
    raise BadUsage(
        f"There is no orchestrator called {name!r}.",
        f"The orchestrators are {known}." + (f" Did you mean {near[0]}?" if near else ""),
        f"Set {setting} in .env." if setting else f"invoke up --orch {near[0] if near else next(iter(orchestrators))}",
    )
