"""What the native runtime starts, as plain values: folders, environments and argv lists from a ``native.yaml``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from switchyard import bootstrap, caller, certificates
from switchyard import project as projects
from switchyard.errors import BadConfiguration
from switchyard.orchestrators import NATIVE, Orchestrator, ProcessSpec
from switchyard.placeholders import SETTING
from switchyard.project import Project
from switchyard.settings import Settings

_PLACE = re.compile(r"\{([a-z]+)(?::([a-z]+))?\}")


@dataclass(frozen=True)
class Folders:
    """Where the native runtime stores what belongs to one orchestrator (or to PostgreSQL).

    Attributes:
        root: the checkout.
        name: the orchestrator's name, or ``postgres``.
    """

    root: Path
    name: str

    @property
    def code(self) -> Path:
        """The files that are also in the image."""
        return self.root / "docker" / self.name

    def file(self, name: str, next: str) -> Path:
        """The path of a file that `native.yaml` refers to.

        Raises:
            BadConfiguration: it is missing; with ``next`` as what to do.
        """
        path = self.code / name
        if not path.is_file():
            raise BadConfiguration(f"docker/{self.name}/{name} is missing.", "The native runtime needs it.", next)
        return path

    @property
    def installed(self) -> Path:
        """What `build` makes, like an image's layers: locked environments, dbt's packages, the parsed project."""
        return base(self.root) / "environments" / self.name

    @property
    def library(self) -> Path:
        """The folder of the package rundbt, which `build` copies: as in an image, nothing else in the checkout can be imported."""
        return self.installed / "lib"

    @property
    def home(self) -> Path:
        """What lasts, like a volume."""
        return base(self.root) / "data" / self.name

    def virtualenv(self, requirements: str) -> Path:
        """The environment in which a locked set of requirements is installed."""
        return self.installed / Path(requirements).stem


def base(root: Path) -> Path:
    """The folder of the native runtime."""
    return root / ".stack" / "native"


def contract(settings: Settings, folders: Folders, project: Project | None) -> dict[str, str]:
    """The variables that every image sets, with this machine's values, and those that the project uses.

    Args:
        settings: the checkout's settings.
        folders: the orchestrator's.
        project: the dbt project; None for a process that does not run dbt: then the project need not be readable.
    """
    return {
        "PYTHONPATH": str(folders.library),
        "PYTHONUNBUFFERED": "1",
        "SWITCHYARD_SOURCE_PATH": settings["SWITCHYARD_SOURCE_PATH"],
        "DBT_PROJECT_DIR": str(folders.installed / "target" / "project"),
        "DBT_PROFILES_DIR": str(projects.build_folder(settings.root) / "profiles"),
        "DBT_PACKAGES_PATH": str(folders.installed / "packages"),
        "SWITCHYARD_TARGET_PATH": str(folders.installed / "target"),
        **(_connection(settings, project) if project else {}),
        "SCHEDULES_ENABLED": settings["SCHEDULES_ENABLED"],
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "TZ": "UTC",
        **certificates.variables(settings.root),
    }


def _connection(settings: Settings, project: Project) -> dict[str, str]:
    """The variables for the project's profile, target and connection."""
    shared = {
        "DBT_HOST": "127.0.0.1",
        "DBT_PORT": settings["POSTGRES_PORT"],
        "DBT_USER": bootstrap.DBT_ROLE,
        "DBT_DBNAME": project.database,
        "DBT_ENV_SECRET_PASSWORD": settings["DBT_PASSWORD"],
    }
    return {
        "DBT_PROFILE": project.profile,
        "DBT_TARGET": project.target,
        "SWITCHYARD_WAREHOUSE_PATH": str(warehouse(settings.root) / project.database),
        **(shared if project.shared else {}),
        **{key: str(path) for key, path in project.files.items()},
        **project.variables,
    }


def warehouse(root: Path) -> Path:
    """Where embedded databases are, with a folder for each project."""
    return base(root) / "data" / "warehouse"


def expand(text: str, settings: Settings, folders: Folders, ports: Mapping[str, int]) -> str:
    """Fill in both kinds of placeholders.

    ``${KEY}``, ``${KEY:-default}``, ``${KEY:+other}`` and ``${KEY:?message}`` are Compose's, for settings. ``{root}`` is the checkout,
    ``{code}`` and ``{home}`` are those of `Folders`, and ``{environment}`` is `Folders.installed`. ``{port:name}`` is a free port, the
    same one wherever the file uses that name.

    Raises:
        BadConfiguration: there is no such placeholder or setting, or a setting with a message has no value.
    """
    places = {"root": folders.root, "code": folders.code, "home": folders.home, "environment": folders.installed}

    def setting(match: re.Match[str]) -> str:
        dollar, key, kind, rest = match.groups()
        if dollar:
            return dollar
        value = settings.compose_name if key == "COMPOSE_PROJECT_NAME" else settings.values.get(key)
        if kind == ":+":
            return rest if value else ""
        if kind == ":-":
            return value or rest
        if value is None or (kind == ":?" and not value):
            raise BadConfiguration(
                f"{key} {rest or 'has no value'}.",
                f"docker/{folders.name}/{NATIVE} or compose/docker-compose-{folders.name}.yaml uses it.",
                f"Add a line {key}=... to .env.example, with a default or <password>." if value is None else f"Set {key} in .env.",
            )
        return value

    def place(match: re.Match[str]) -> str:
        name, port = match.groups()
        if name == "port" and port:
            return str(ports.get(port, 0))
        if name in places and not port:
            return str(places[name])
        raise BadConfiguration(
            f"docker/{folders.name}/{NATIVE} has {match[0]}, which is not a placeholder.",
            f"Known are {{port:name}}, {', '.join(f'{{{key}}}' for key in places)}.",
            f"Correct docker/{folders.name}/{NATIVE}, then the same command.",
        )

    def filled(match: re.Match[str]) -> str:
        found = SETTING.fullmatch(match[0])
        return setting(found) if found else _PLACE.sub(place, match[0])

    # In one pass, so that braces in a password are not expanded.
    return re.sub(f"{SETTING.pattern}|{_PLACE.pattern}", filled, text)


def port_names(orchestrator: Orchestrator) -> list[str]:
    """The names of the ports that the orchestrator's processes use among themselves."""
    native = orchestrator.native_block
    texts = [text for process in native.processes for text in (*process.command, *process.health, *process.environment.values())]
    return sorted({match[2] for text in texts for match in _PLACE.finditer(text) if match[1] == "port"})


def process_variables(
    settings: Settings,
    orchestrator: Orchestrator,
    process: ProcessSpec | None,
    ports: Mapping[str, int],
    environ: Mapping[str, str],
    project: Project | None,
) -> dict[str, str]:
    """The whole environment of one process, or without one, of a command of a build."""
    folders = Folders(settings.root, orchestrator.name)

    def filled(values: Mapping[str, str]) -> dict[str, str]:
        return {key: expand(str(value), settings, folders, ports) for key, value in values.items()}

    own = filled(process.environment if process else orchestrator.native_block.environment)
    found = {**caller.inherited(environ), **filled(process.container if process else {}), **contract(settings, folders, project), **own}
    programs = [str(folders.virtualenv(requirements) / scripts()) for requirements in orchestrator.native_block.requirements]
    return {**found, "PATH": os.pathsep.join([*programs, environ.get("PATH", os.defpath)])}


def argv(settings: Settings, orchestrator: Orchestrator, command: Sequence[str], ports: Mapping[str, int]) -> list[str]:
    """A command of `native.yaml`, with its placeholders filled in."""
    folders = Folders(settings.root, orchestrator.name)
    return [expand(word, settings, folders, ports) for word in command]


def scripts() -> str:
    """The name of the folder with an environment's programs."""
    return "Scripts" if os.name == "nt" else "bin"


def launch_fingerprint(argv: Sequence[str], env: Mapping[str, str], build: str) -> str:
    """Changes whenever a process would be started differently: its command, its environment, or its build."""
    return hashlib.sha256(json.dumps([argv, sorted(env.items()), build]).encode()).hexdigest()
