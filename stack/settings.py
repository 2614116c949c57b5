"""``.env`` as one frozen object: defaults, validation, and secrets that are made at first use."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from stack.errors import BadConfiguration

PROJECT_NAME = "switchyard"
_PROJECT_NAME_KEY = "COMPOSE_PROJECT_NAME"

# What stands in .env.example for a secret, and how one is made. All are url-safe, so that no parser, shell or
# connection URL can misread them. A Fernet key is 32 bytes in padded base64; Airflow wants 64 bytes for its JWTs.
_MAKERS = {
    "<password>": lambda: secrets.token_urlsafe(18),
    "<key>": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "<long-key>": lambda: secrets.token_urlsafe(64),
}
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True)
class Settings:
    """The settings of one checkout.

    Attributes:
        root: the checkout's folder.
        values: every key of ``.env.example`` with its value in force.
        project: the compose project's name, which every container, network and volume of the stack carries.
    """

    root: Path
    values: Mapping[str, str]
    project: str

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def port(self, key: str) -> int:
        """The TCP port under ``key``, already checked to be one."""
        return int(self.values[key])

    @property
    def env_file(self) -> Path:
        """The file that the secrets are kept in."""
        return self.root / ".env"


def load(root: Path, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Read ``.env``, first making it, or completing it, from ``.env.example``.

    Args:
        root: the checkout's folder.
        environ: the process's environment; a key set there wins over ``.env``, as it does for Docker Compose.

    Returns:
        The settings, and the keys that were written to ``.env`` just now (usually none).

    Raises:
        BadConfiguration: a line of ``.env`` cannot be read, or a value is not what its key needs.
    """
    example = (root / ".env.example").read_text(encoding="utf-8")
    path = root / ".env"
    there = path.exists()
    text = path.read_text(encoding="utf-8-sig") if there else example
    _check_lines(text)
    completed, made = complete(text, example)
    if made:
        try:
            _write_private(path, completed, new=not there)
        except FileExistsError:  # another command was first
            return load(root, environ)

    defaults = dotenv_values(root / ".env.example", interpolate=False)
    in_file = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    values = {key: environ.get(key) or in_file.get(key) or defaults[key] or "" for key in defaults}
    _check_values(values)
    project = environ.get(_PROJECT_NAME_KEY) or in_file.get(_PROJECT_NAME_KEY) or PROJECT_NAME
    return Settings(root, values, project), made


def complete(text: str, example: str) -> tuple[str, list[str]]:
    """Put a secret wherever ``text`` has a placeholder, and add the secrets of ``example`` that it lacks.

    Everything else in ``text``, comments included, stays as it is.

    Returns:
        The completed text, and the keys for which a secret was made.
    """
    made: list[str] = []
    present: set[str] = set()

    def filled(line: str) -> str:
        match = _ASSIGNMENT.match(line)
        if not match:
            return line
        key, value = match.groups()
        present.add(key)
        if value not in _MAKERS:
            return line
        made.append(key)
        return f"{key}={_MAKERS[value]()}"

    lines = [filled(line) for line in text.splitlines()]
    for line in example.splitlines():
        match = _ASSIGNMENT.match(line)
        if match and match[2] in _MAKERS and match[1] not in present:
            lines.append(filled(line))
    return "\n".join(lines) + "\n", made


def _check_lines(text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and not _ASSIGNMENT.match(line):
            raise BadConfiguration(
                f".env cannot be read: line {number} is not KEY=value.",
                f"The line reads: {line.split('=')[0][:40]}",
                "Correct the line, or put # before it.",
            )


def _check_values(values: Mapping[str, str]) -> None:
    ports: dict[str, str] = {}
    for key, value in values.items():
        if key.endswith("_PORT"):
            if not value.isdecimal() or not 0 < int(value) < 65536:
                raise BadConfiguration(
                    f"{key} is {value!r}, which is not a port.", "A port is a number from 1 to 65535.", f"Set {key} in .env."
                )
            if other := ports.get(value):
                raise BadConfiguration(
                    f"{other} and {key} are both {value}.", "Each service needs a port of its own.", f"Set {key} in .env to a free port."
                )
            ports[value] = key
    if values["RUNTIME"] not in ("auto", "docker", "native"):
        raise BadConfiguration(f"RUNTIME is {values['RUNTIME']!r}.", "It is auto, docker or native.", "Set RUNTIME in .env.")
    if values["SCHEDULES_ENABLED"] not in ("true", "false"):
        raise BadConfiguration(
            f"SCHEDULES_ENABLED is {values['SCHEDULES_ENABLED']!r}.", "It is either true or false.", "Set SCHEDULES_ENABLED in .env."
        )


def _write_private(path: Path, text: str, *, new: bool) -> None:
    """Write ``path`` at once, readable by its owner alone (mkstemp makes the file 0600); a ``new`` one replaces no other.

    Raises:
        FileExistsError: ``path`` should be new, and is there.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".env.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if new:
            with contextlib.suppress(PermissionError, NotImplementedError):  # some file systems know no links
                os.link(temporary, path)
                return
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
