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
CHECKOUT_LABEL = "switchyard.checkout"  # the label of the data's volume and of the images: the checkout that owns them


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
    taken = {} if environ.get("COMPOSE_PROJECT_NAME") else _owners(runner)
    if name in taken:
        own = next(other for other in map(f"{name}-{{}}".format, count(2)) if other not in taken)
        settings.assign(loaded.root, "COMPOSE_PROJECT_NAME", own)
        yield f"Docker has a stack called {name} already{taken[name]}: this one is {own}."
    wanted = {key: loaded.port(key) for key in loaded.values if key.endswith("_PORT")}
    used = set(wanted.values())
    for key, port in wanted.items():
        if not environ.get(key) and not ports.free(port):
            chosen = next(other for other in range(port + 1, 65536) if other not in used and ports.free(other))
            used.add(chosen)
            settings.assign(loaded.root, key, str(chosen))
            yield f"{key} is {chosen}: {port} is taken on this machine."


def _owners(runner: Runner) -> dict[str, str]:
    """The compose projects of this machine, each with its owner, for a message; none where no engine answers."""
    project = f'{{{{.Label "{COMPOSE_PROJECT_LABEL}"}}}}'
    has_project = ["--filter", f"label={COMPOSE_PROJECT_LABEL}", "--format"]
    images = ["--filter", f"label={CHECKOUT_LABEL}", "--filter", "reference=*-postgres:local", "--format", "{{.Repository}}"]

    def lines(*argv: str) -> list[str]:
        found = runner.ask(["docker", *argv], seconds=ENGINE_TIMEOUT_S)
        return found.stdout.split("\n")[:-1] if found.code == 0 else []

    owners = {line.removesuffix("-postgres"): ", with images" for line in lines("image", "ls", *images)}
    owners |= dict.fromkeys(lines("volume", "ls", *has_project, project), ", with data")
    for line in lines("ps", "--all", *has_project, f'{project}\t{{{{.Label "{COMPOSE_PROJECT_LABEL}.working_dir"}}}}'):
        name, _, folder = line.partition("\t")
        owners[name] = f", of {folder}"
    return owners
