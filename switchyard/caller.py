"""The caller's environment, and the parts of it that are passed on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# The variables that a program needs to work on this machine. A DBT_ or PYTHON variable of the user must not reach the processes,
# just as it does not reach a container.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TMPDIR|TEMP|TMP|SSL_CERT_FILE|SSL_CERT_DIR"
    r"|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|PROGRAMDATA|USERPROFILE",
    re.I,
)


def has_home() -> bool:
    """Whether the account has a writable home, or needs none."""
    return os.name == "nt" or os.access(os.path.expanduser("~"), os.W_OK)


def with_home(home: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The caller's environment; without a writable home, with a HOME in the checkout, since uv, dbt and Prefect write there."""
    if has_home():
        return environ
    return {**environ, "HOME": str(home)}


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the caller's environment that every process gets."""
    return {key: value for key, value in environ.items() if _INHERITED.fullmatch(key)}


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies in the caller's environment: for downloads during a build, not for what runs later."""
    return {key: value for key, value in environ.items() if key.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}


def proxy_names(environ: Mapping[str, str]) -> list[str]:
    """The names of :func:`proxies`, one for each proxy: BuildKit treats both spellings as the same, and would use either value.

    The lower-case name wins, as it does in curl and Python.
    """
    return list({key.lower(): key for key in sorted(proxies(environ))}.values())
