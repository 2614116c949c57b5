"""A name and ports for a checkout that is used for the first time, so that it does not collide with what runs on the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path

from dotenv import dotenv_values

from switchyard import ports, settings
from switchyard.checks import ENGINE_TIMEOUT_S, no_answer
from switchyard.runner import Runner
from switchyard.settings import Settings

COMPOSE_PROJECT_LABEL = "com.docker.compose.project"  # the label of everything in a compose project
CHECKOUT_LABEL = "switchyard.checkout"  # the label of the data's volume and of the images: the checkout that owns them
_NAME = "COMPOSE_PROJECT_NAME"


def numbered(name: str) -> Iterator[str]:
    """``name``, then ``name-2``, ``name-3`` and so on, without an end."""
    return chain([name], map(f"{name}-{{}}".format, count(2)))


def is_new(root: Path) -> bool:
    """Whether no command has made anything in the checkout yet; ``.stack`` alone does not count, since taking the lock makes it."""
    return not (root / ".env").exists() and not any((root / ".stack" / name).exists() for name in ("native", "build"))


def is_unnamed(loaded: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the stack's name can still be chosen: nothing was made in Docker yet, and neither ``.env`` nor the shell has a name."""
    made = (loaded.root / "compose" / ".env").exists()
    return not (made or environ.get(_NAME) or dotenv_values(loaded.env_file, interpolate=False).get(_NAME))


def chosen_ports(loaded: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Other ports for a new checkout, by key, where those of ``.env.example`` are taken; what is set in ``environ`` is not changed."""
    wanted = {key: loaded.port(key) for key in loaded.values if key.endswith("_PORT")}
    used = set(wanted.values())
    chosen = {}
    for key, port in wanted.items():
        if not environ.get(key) and not ports.free(port):
            chosen[key] = next(other for other in range(port + 1, 65536) if other not in used and ports.free(other))
            used.add(chosen[key])
    return {key: str(port) for key, port in chosen.items()}


def name_stack(loaded: Settings, images: Iterable[str], runner: Runner) -> str:
    """Write the stack's name into ``.env``: the default one, or another where that is taken.

    Args:
        loaded: the settings, in ``.env``.
        images: what the images of a stack are called after its name.
        runner: what starts programs.

    Returns:
        What was chosen and why, for a person; empty if it is the default.

    Raises:
        EngineMissing: the engine does not answer.
    """
    name, taken = loaded.compose_name, _owners(images, runner)
    own = next(other for other in numbered(name) if other not in taken)
    settings.assign(loaded.root, _NAME, own)
    return f"Docker has a stack called {name} already{taken[name]}: this one is {own}." if own != name else ""


def _owners(names: Iterable[str], runner: Runner) -> dict[str, str]:
    """The compose projects of this machine, each with its owner, for a message."""
    project = f'{{{{.Label "{COMPOSE_PROJECT_LABEL}"}}}}'
    has_project = ["--filter", f"label={COMPOSE_PROJECT_LABEL}", "--format"]
    images = ["--filter", f"label={CHECKOUT_LABEL}", "--filter", "reference=*:local", "--format", "{{.Repository}}"]

    def lines(*argv: str) -> list[str]:
        found = runner.ask(["docker", *argv], seconds=ENGINE_TIMEOUT_S)
        if found.code:
            raise no_answer(found.stderr.strip())
        return found.stdout.split("\n")[:-1]

    built = lines("image", "ls", *images)
    owners = {image.removesuffix(f"-{name}"): ", with images" for name in names for image in built if image.endswith(f"-{name}")}
    owners |= dict.fromkeys(lines("volume", "ls", *has_project, project), ", with data")
    for line in lines("ps", "--all", *has_project, f'{project}\t{{{{.Label "{COMPOSE_PROJECT_LABEL}.working_dir"}}}}'):
        name, _, folder = line.partition("\t")
        owners[name] = f", of {folder}"
    return owners
