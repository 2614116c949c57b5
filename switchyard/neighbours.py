"""A name and ports for a checkout that is used for the first time, so that it does not collide with what runs on the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from switchyard import ports, settings
from switchyard.checks import ENGINE_TIMEOUT_S
from switchyard.runner import Runner
from switchyard.settings import Settings

COMPOSE_PROJECT_LABEL = "com.docker.compose.project"  # the label of everything in a compose project
CHECKOUT = "switchyard.checkout"  # the label of the data's volume and of the images: the checkout that owns them


def is_new(root: Path) -> bool:
    """Whether no command has made anything in the checkout yet; ``.stack`` alone does not count, since taking the lock makes it."""
    return not (root / ".env").exists() and not any((root / ".stack" / name).exists() for name in ("native", "build"))


def settle(loaded: Settings, environ: Mapping[str, str], runner: Runner) -> Iterator[str]:
    """Write another project name, and other ports, into a new ``.env`` where those of ``.env.example`` are taken.

    Args:
        loaded: the settings, just written.
        environ: the caller's environment; what is set there is not changed.
        runner: what starts programs.

    Yields:
        What was chosen and why, for a person.
    """
    name = loaded.compose_name
    if not environ.get("COMPOSE_PROJECT_NAME") and (owner := _owner(name, runner)):
        own = next(other for other in (f"{name}-{number}" for number in count(2)) if not _owner(other, runner))
        settings.assign(loaded.root, "COMPOSE_PROJECT_NAME", own)
        yield f"Docker has a stack called {name} already{owner}: this one is {own}."
    wanted = {key: loaded.port(key) for key in loaded.values if key.endswith("_PORT")}
    taken = set(wanted.values())
    for key, port in wanted.items():
        if not environ.get(key) and not ports.free(port):
            other = next(other for other in range(port + 1, 65536) if other not in taken and ports.free(other))
            taken.add(other)
            settings.assign(loaded.root, key, str(other))
            yield f"{key} is {other}: {port} is taken on this machine."


def _owner(name: str, runner: Runner) -> str:
    """The owner of the compose project ``name``, for a message; empty where there is no such project, or no engine answers."""
    template = f'{{{{.Label "{COMPOSE_PROJECT_LABEL}.working_dir"}}}}'
    found = runner.ask(
        ["docker", "ps", "--all", "--filter", f"label={COMPOSE_PROJECT_LABEL}={name}", "--format", template], seconds=ENGINE_TIMEOUT_S
    )
    if found.code == 0 and found.stdout.strip():
        return f", of {found.stdout.splitlines()[0]}"
    volumes = runner.ask(
        ["docker", "volume", "ls", "--quiet", "--filter", f"label={COMPOSE_PROJECT_LABEL}={name}"], seconds=ENGINE_TIMEOUT_S
    )
    if volumes.code == 0 and volumes.stdout.strip():
        return ", with data"
    images = runner.ask(
        ["docker", "image", "ls", "--quiet", "--filter", f"label={CHECKOUT}", "--filter", f"reference={name}-postgres:local"],
        seconds=ENGINE_TIMEOUT_S,
    )
    return ", with images" if images.code == 0 and images.stdout.strip() else ""
