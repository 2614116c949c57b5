"""The orchestrators, read from their compose files: no list of names exists in Python."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from switchyard.errors import BadConfiguration, BadUsage

PROJECT_MOUNT = ":/opt/dbt/project:ro"  # the end of the volume with the dbt project; a service with it runs dbt, or shows the project
_OTHER_MOUNT = re.compile(":/opt/dbt/project/?(:|$)")  # a volume at the same place that does not end so
NATIVE = "native.yaml"  # in docker/<name>: the processes of the native runtime
_PREFIX = "docker-compose-"
_BLOCK = "x-orchestrator"
LABEL = "switchyard.orchestrator"  # of the containers of an orchestrator's services
_NAME = re.compile("[a-z][a-z0-9_]*")  # it is a part of the names of variables and images
# The keys of the block, of its sign-in, of native.yaml, and of a service there.
_KEYS = ("title", "ui_port", "ui_path", "login", "memory", "worker_memory", "database", "service", "dbt", "run")
_LOGIN_KEYS = ("user", "password", "in_one_field")
_NATIVE_KEYS = ("requirements", "home", "unsupported", "run", "environment", "services")
_PROCESS_KEYS = ("command", "health", "environment")
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


def require_keys(orchestrators: Mapping[str, Orchestrator], settings: Mapping[str, str]) -> None:
    """Make sure that each of an orchestrator's `keys` has a value in the ``settings``.

    Raises:
        BadConfiguration: one is not; the message has the missing line.
    """
    for orchestrator in orchestrators.values():
        for key in orchestrator.keys:
            if not settings.get(key):
                line = f"{key}=" + ("1234" if key == orchestrator.ui_port else "<password>")
                missing = "has no value in .env.example" if key in settings else ".env.example does not have"
                raise BadConfiguration(
                    f"{orchestrator.title} needs the setting {key}, which {missing}.",
                    f"compose/{orchestrator.file.name} uses it.",
                    f"Write {line} in .env.example." if key in settings else f"Add a line to .env.example: {line}",
                )


def files(root: Path) -> list[Path]:
    """The compose files of the checkout, including PostgreSQL's."""
    return sorted((root / "compose").glob(f"{_PREFIX}*.yaml"))


def load(root: Path, file: Path) -> Orchestrator | None:
    """The orchestrator in one compose file, with its ``native.yaml``; None without an ``x-orchestrator`` block.

    Raises:
        BadConfiguration: a file is not YAML, or a key is missing, unknown or has an invalid value.
    """
    name = file.stem.removeprefix(_PREFIX)
    with _read(root, file) as content:
        if _BLOCK not in content:
            for near in difflib.get_close_matches(_BLOCK, map(str, content), n=1, cutoff=0.85):
                raise ValueError(f"{near} is not a known block; did you mean {_BLOCK}?")
            return None
        if not _NAME.fullmatch(name):
            raise BadConfiguration(
                f"An orchestrator cannot be called {name!r}.",
                "The name is part of the names of variables: small letters, digits and _, a letter first.",
                f"Rename compose/{file.name}, and the folder docker/{name}.",
            )
        services = {service: _mapping(body, service) for service, body in _mapping(content["services"], "services").items()}
        needs = {service: _needs(body, service) for service, body in services.items()}
        containers = {service: variables(body, f"{service}: ", passed_on=True) for service, body in services.items()}
        labels = {service: pairs(body, "labels", f"{service}: ").get(LABEL) for service, body in services.items()}
        found = _orchestrator(name, file, _mapping(content[_BLOCK], _BLOCK, _KEYS), services, needs)
        for service, label in labels.items():
            if label != name and (label is not None or service in (found.service, found.dbt, found.built, *found.scaled)):
                raise ValueError(f"{service} does not have the label {LABEL}: {name}" + (f", but {label}" if label else ""))
    native = root / "docker" / name / NATIVE
    if not native.exists():
        return found
    with _read(root, native) as content:
        return replace(found, native=_native(_mapping(content, NATIVE, _NATIVE_KEYS), found, labels, needs, containers))


@contextmanager
def _read(root: Path, file: Path) -> Iterator[dict[str, Any]]:
    """The content of a YAML file; errors in the body of the ``with`` count as errors of the file.

    Raises:
        BadConfiguration: it is not YAML, or the body raised an error.
    """
    try:
        yield _mapping(yaml.load(file.read_text(encoding="utf-8"), _LOADER) or {}, "the file")
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        reason = f"it lacks the key {error}" if isinstance(error, KeyError) else str(error)
        name = file.relative_to(root).as_posix()
        raise BadConfiguration(f"{name} cannot be read.", reason, f"Correct {name}, then the same command.") from None


def _require_known(name: str, known: Collection[str], problem: str) -> None:
    """Make sure that ``name`` is one of the ``known`` ones; if not, the error has the most similar one."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise ValueError(problem + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"))


def _mapping(value: Any, key: str, known: Collection[str] = ()) -> dict[str, Any]:
    """``value``, which must be a mapping; with ``known``, it has only these keys, and Compose's ``x-`` keys for anchors."""
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not a mapping, of lines such as key: value")
    for name in value:
        if known and not str(name).startswith("x-"):
            _require_known(name, known, f"{key} has the unknown key {name}")
    return value


def _text(block: Mapping[str, Any], key: str) -> str:
    value = block[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a text: {value}")
    return value


def _amount(block: Mapping[str, Any], key: str) -> int:
    value = block.get(key, 0)
    if not isinstance(value, int):
        raise ValueError(f"{key} is not a number of MiB: {value}")
    return value


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} is not a list; write it as [first, second]")
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f"{key} has {item}, which is not a text; write it in quotes")
    return tuple(value)


def pairs(body: Mapping[str, Any], key: str, of: str = "") -> dict[str, Any]:
    """The names and values under a key, in either of Compose's forms; None for a name without a value.

    Args:
        body: a service.
        key: ``environment`` or ``labels``.
        of: whose they are, for the message of an error.

    Raises:
        ValueError: they have another form.
    """
    found = body.get(key) or {}
    if isinstance(found, list):
        found = {name: value if equals else None for name, equals, value in (text.partition("=") for text in _texts(found, key))}
    return _mapping(found, f"{of}{key}")


def variables(body: Mapping[str, Any], of: str = "", passed_on: bool = False) -> dict[str, str]:
    """The variables under ``environment``, as texts.

    Args:
        body: a service, or what else has them.
        of: whose they are, for the message of an error.
        passed_on: leave out those that Compose takes from the shell; otherwise they are an error.

    Raises:
        ValueError: they have another form, or one has no value.
    """
    found = {name: value for name, value in pairs(body, "environment", of).items() if value is not None or not passed_on}
    for name, value in found.items():
        if value is None or isinstance(value, (dict, list)):
            raise ValueError(f"{of}the variable {name} has no value; write one, or ''")
    return {str(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in found.items()}


def _needs(body: Mapping[str, Any], service: str) -> dict[str, str]:
    """The services under ``depends_on``, in either of Compose's forms, with the condition of each."""
    found = body.get("depends_on") or {}
    if isinstance(found, list):
        return dict.fromkeys(_texts(found, f"{service}: depends_on"), "service_started")
    return {name: _text(_mapping(needed, name), "condition") for name, needed in _mapping(found, f"{service}: depends_on").items()}


def _orchestrator(
    name: str, file: Path, block: dict[str, Any], services: dict[str, dict[str, Any]], needs: Mapping[str, Mapping[str, str]]
) -> Orchestrator:
    login = _mapping(block.get("login") or {}, "login", _LOGIN_KEYS)
    mounts = {}
    for service, body in services.items():
        volumes = body.get("volumes") or []
        if not isinstance(volumes, list):
            raise ValueError(f"{service}: volumes is not a list")
        if not all(isinstance(volume, str) for volume in volumes):
            raise ValueError(f"{service} has a volume in Compose's long form; write it as source:target")
        others = tuple(volume for volume in volumes if not volume.endswith(PROJECT_MOUNT))
        for volume in others:
            if _OTHER_MOUNT.search(volume):
                raise ValueError(f"{service} mounts the dbt project in another form; the volume must end with {PROJECT_MOUNT}")
        if len(others) < len(volumes):
            mounts[service] = others
    replicated = [service for service, body in services.items() if "replicas" in _mapping(body.get("deploy") or {}, f"{service}: deploy")]
    scaled = [service for service in replicated if service != block["dbt"]]
    fixed = tuple(service for service in services if service not in scaled)
    for key in ("service", "dbt"):
        _require_known(_text(block, key), fixed, f"{key} is {block[key]}, which is no service that always runs")
    built = [service for service, body in services.items() if "build" in body]
    if len(built) != 1:
        raise KeyError("build (in exactly one service)")
    return Orchestrator(
        name=name,
        title=_text(block, "title"),
        file=file,
        ui_port=_text(block, "ui_port"),
        ui_path=_text(block, "ui_path"),
        login_user=_text(login, "user") if login else None,
        login_key=_text(login, "password") if login else None,
        login_in_one=login.get("in_one_field", False),
        database=_text(block, "database") if block.get("database") else None,
        service=block["service"],
        dbt=block["dbt"],
        run=_texts(block["run"], "run"),
        built=built[0],
        mounts=mounts,
        services=fixed,
        scaled=tuple(scaled),
        worker=next((service for service in replicated if "extends" not in services[service]), ""),
        memory=_amount(block, "memory"),
        worker_memory=_amount(block, "worker_memory"),
        after={name: tuple(other for other in needed if other in services) for name, needed in needs.items()},
    )


def _native(
    block: dict[str, Any],
    found: Orchestrator,
    labels: Mapping[str, Any],
    needs: Mapping[str, Mapping[str, str]],
    containers: Mapping[str, Mapping[str, str]],
) -> NativeBlock:
    processes = _mapping(block["services"], "services")
    for name, process in processes.items():
        problem = f"{name} is no service of compose/{found.file.name}" + (" that runs without workers" if name in found.scaled else "")
        _require_known(name, found.services, problem)
        _mapping(process, name, _PROCESS_KEYS)
        if not labels[name]:
            raise ValueError(f"{name} of compose/{found.file.name} does not have the label {LABEL}: {found.name}")
    for name in found.services:
        if labels[name] and name not in processes:  # a service without the label is one that somebody added for Docker alone
            raise ValueError(f"the service {name} of compose/{found.file.name} is missing under services")
    environment = variables(block)
    return NativeBlock(
        requirements=_texts(block["requirements"], "requirements"),
        home=_texts(block["home"], "home") if block.get("home") else (),
        unsupported=_mapping(block.get("unsupported") or {}, "unsupported"),
        environment=environment,
        run=_texts(block["run"], "run"),
        processes=tuple(
            ProcessSpec(
                service=name,
                command=_texts(process.get("command"), f"{name}: command"),
                health=_texts(process.get("health"), f"{name}: health"),
                container=containers[name],
                environment={**environment, **variables(process, f"{name}: ")},
                # Every service depends on PostgreSQL, which is up before an orchestrator starts, so it is left out.
                after=tuple(other for other, condition in needs[name].items() if other in processes and condition == "service_healthy"),
            )
            for name, process in processes.items()
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
    files = {other.file.with_name(f"{_PREFIX}{name}.yaml") for other in orchestrators.values()} if _NAME.fullmatch(name) else set()
    blockless = "".join(f"compose/{file.name} has no block {_BLOCK} (docs/orchestrator.md). " for file in files if file.exists())
    raise BadUsage(
        f"There is no orchestrator called {name!r}.",
        f"{blockless}The orchestrators are {known}." + (f" Did you mean {near[0]}?" if near else ""),
        f"Set {setting} in .env." if setting else f"invoke up --orch {near[0] if near else next(iter(orchestrators))}",
    )
