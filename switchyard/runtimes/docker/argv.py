"""The commands of the Docker runtime, ``docker compose -f ...`` and others, as argv lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from switchyard import bootstrap, release
from switchyard.neighbours import CHECKOUT_LABEL, COMPOSE_PROJECT_LABEL
from switchyard.orchestrators import LABEL, Orchestrator
from switchyard.runtimes.runtime import POSTGRES
from switchyard.settings import Settings

LABEL_BAKED = "switchyard.baked"
DATA_VOLUME = "postgres-db-volume"

_COLUMNS = (
    "{{.ID}}",
    "{{.Names}}",
    '{{.Label "com.docker.compose.service"}}',
    f'{{{{.Label "{LABEL}"}}}}',
    f'{{{{.Label "{LABEL_BAKED}"}}}}',
    "{{.State}}",
    "{{.Status}}",
    f'{{{{.Label "{COMPOSE_PROJECT_LABEL}.working_dir"}}}}',
)


def postgres_file(settings: Settings) -> Path:
    """The compose file of the shared PostgreSQL."""
    return settings.root / "compose" / "docker-compose-postgres.yaml"


def compose(settings: Settings, file: Path, *args: str, override: Path | None = None) -> list[str]:
    """``docker compose`` for one compose file, with the checkout's settings."""
    files = ["-f", str(file)] + (["-f", str(override)] if override else [])
    return ["docker", "compose", "--env-file", str(settings.compose_env), *files, *args]


def build(settings: Settings, file: Path, service: str, *, cache: bool = True, proxies: Iterable[str] = (), ssh: bool = False) -> list[str]:
    """Build the image of one service; naming it leaves out the PostgreSQL that the file includes.

    ``proxies`` are names of variables: Docker gets their values, which may contain a password, in its environment. These build
    arguments are predefined, and Docker keeps them out of the image and its history. ``ssh`` gives the build access to the caller's
    SSH agent, for packages from git.
    """
    options = [] if cache else ["--no-cache"]
    options += ["--ssh", "default"] if ssh else []
    for name in proxies:
        options += ["--build-arg", name]
    return compose(settings, file, "--progress", "plain", "build", *options, service)


def _up(settings: Settings, file: Path, timeout: int, *args: str, override: Path | None = None) -> list[str]:
    """Start the services of a file, and wait until they are healthy; their images were built or pulled before."""
    waiting = ["--wait", "--wait-timeout", str(timeout)]
    return compose(settings, file, "--progress", "plain", "up", "-d", "--no-build", *waiting, *args, override=override)


def up_postgres(settings: Settings, timeout: int) -> list[str]:
    """Start PostgreSQL alone and wait until it is healthy; a running orchestrator is not touched."""
    return _up(settings, postgres_file(settings), timeout, POSTGRES)


def up(settings: Settings, orchestrator: Orchestrator, timeout: int, override: Path | None = None) -> list[str]:
    """Start one orchestrator and wait until it is healthy.

    ``--remove-orphans`` makes this a switch: Compose stops and removes the services that are not in this file, those of the other
    orchestrator, before it creates the new ones. PostgreSQL, which the file includes, keeps its container.
    """
    return _up(settings, orchestrator.file, timeout, "--remove-orphans", override=override)


def scale(settings: Settings, orchestrator: Orchestrator, timeout: int, override: Path | None = None) -> list[str]:
    """Start or remove workers; a running one is not recreated, whatever has changed, because it may execute a run."""
    options = ["--no-recreate", "--no-deps", orchestrator.worker]
    return _up(settings, orchestrator.file, timeout, *options, override=override)


def down(settings: Settings, file: Path) -> list[str]:
    """Remove every container and the network of the stack; volumes stay.

    With the orchestrator's own file, Compose stops it before PostgreSQL, so that it can still record its end.
    """
    return compose(settings, file, "--progress", "plain", "down", "--remove-orphans")


def logs(settings: Settings, file: Path, *, follow: bool, tail: int, service: str | None) -> list[str]:
    """Show the logs of the services in one compose file."""
    args = ["--follow"] if follow else []
    return compose(settings, file, "logs", "--tail", str(tail), *args, *([service] if service else []))


def execute(
    settings: Settings, file: Path, service: str, command: Sequence[str], *, tty: bool = False, user: str | None = None
) -> list[str]:
    """Run a command in a service's container."""
    return compose(settings, file, "exec", *([] if tty else ["-T"]), *(["--user", user] if user else []), service, *command)


def on_server(settings: Settings, command: Sequence[str], *, tty: bool = False) -> list[str]:
    """Run a command in PostgreSQL's container, as the account that needs no password on the local socket."""
    return execute(settings, postgres_file(settings), POSTGRES, command, tty=tty, user="postgres")


def psql(role: str, *args: str, database: str = bootstrap.WAREHOUSE) -> list[str]:
    """psql in the PostgreSQL container, over its local socket, which needs no password."""
    return ["psql", "--no-psqlrc", "--username", role, "--dbname", database, *args]


def ps(settings: Settings) -> list[str]:
    """All containers of the stack, running or not, one tab-separated line each."""
    project = f"label={COMPOSE_PROJECT_LABEL}={settings.compose_name}"
    return ["docker", "ps", "--all", "--no-trunc", "--filter", project, "--format", "\t".join(_COLUMNS)]


def image_name(settings: Settings, name: str) -> str:
    """The image of ``name``: the one built from ``docker/<name>``, or the one of the release."""
    return settings.values.get(release.image_key(name)) or f"{settings.compose_name}-{name}:local"


def volume(settings: Settings) -> list[str]:
    """Create the data's volume as Compose would, with the checkout's label. If the file had that, Compose would ask about older volumes."""
    labels = {COMPOSE_PROJECT_LABEL: settings.compose_name, "com.docker.compose.volume": DATA_VOLUME, CHECKOUT_LABEL: str(settings.root)}
    options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    return ["docker", "volume", "create", *options, f"{settings.compose_name}_{DATA_VOLUME}"]
