"""The caller's environment, and what of it others get."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# Of the caller's environment, only what a program needs to find its way on the machine: a DBT_ or PYTHON variable of the
# user's own must reach the processes as little as it reaches a container.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TMPDIR|TEMP|TMP|SSL_CERT_FILE|SSL_CERT_DIR"
    r"|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|PROGRAMDATA|USERPROFILE",
    re.I,
)


def has_home() -> bool:
    """Whether the account has a home that can be written to, or needs none."""
    return os.name == "nt" or os.access(os.path.expanduser("~"), os.W_OK)


def with_home(home: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The caller's environment, with a HOME of the checkout's where there is none that can be written to, as uv, dbt and Prefect do."""
    if has_home():
        return environ
    return {**environ, "HOME": str(home)}


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the caller's environment that every process gets."""
    return {key: value for key, value in environ.items() if _INHERITED.fullmatch(key)}


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the caller's environment that names proxies: for what a build downloads, and nothing that runs later."""
    return {key: value for key, value in environ.items() if key.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}


def proxy_names(environ: Mapping[str, str]) -> list[str]:
    """The variables that :func:`proxies` finds, one of each proxy: BuildKit takes both spellings for one, and then either value.

    The one in small letters is first choice, as it is curl's and Python's.
    """
    return list({key.lower(): key for key in sorted(proxies(environ))}.values())
