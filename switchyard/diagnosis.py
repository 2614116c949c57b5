"""The cause of a failure, found in the output of an engine, a build, a service or the system. These functions read nothing else."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rundbt.results import COLOUR
from switchyard import checks
from switchyard.errors import BadConfiguration, BuildFailed, ImageUnavailable, NoSpace, NotHealthy, OutOfMemory, StackError

# The messages of BuildKit, old and new, and of the classic builder when the base image cannot be pulled.
_PULL = re.compile(
    r"failed to (resolve source metadata|load metadata|do request|authorize|fetch (anonymous|oauth) token|copy: httpReadSeeker)"
    r"|pull access denied|manifest (for .+ not found|unknown)|error pulling image"
    r"|failed to solve: \S+: .*(not found|unexpected status)",
    re.I,
)
# Why a pull failed; the first match is shown.
_REASONS = {
    r"toomanyrequests|rate limit|429 Too Many": "The registry limits pulls without a sign-in; `docker login` raises the limit.",
    r"x509|certificate signed by unknown|tls: failed to verify": (
        "The engine does not trust the registry's certificate. certs/ is for what runs in the build; the engine itself needs the\n"
        "company's certificate in /etc/docker/certs.d/REGISTRY/ca.crt, and Docker Desktop in the system's own store."
    ),
    r"proxyconnect|proxy authentication|407 Proxy": "The engine's proxy blocks the request; the proxy is a setting of the engine.",
    r"no such host|server misbehaving|name resolution|lookup .+ on ": "The registry's name is not found: there is no network, or no DNS.",
    r"403|forbidden|denied|401|unauthorized": "The registry refuses: it is blocked here, needs `docker login`, or has no such image.",
    r"not found|manifest unknown": "The registry has no such image.",
    r"refused|timeout|timed out|deadline exceeded|unreachable|reset by peer|EOF": "The registry cannot be reached from here.",
}
# dbt's target folder in a container is in memory, and has a limit of its own.
_TARGET_FULL = r"No space left on device[^\n]*/opt/dbt/target"
_RAISE_TARGET = "Raise size= of its line `/opt/dbt/target:size=...` in the orchestrator's file in compose/, then: invoke up"
# Advice that a node's own message lacks.
_HELP = {
    r"seed .*column .+ of relation .+ does not exist": "The seed's columns have changed: invoke run --full-refresh",
    r"lock timeout": "Another session has a lock that the node needs. LOCK_TIMEOUT in .env sets how long dbt waits for it.",
    r"too many clients|remaining connection slots|too many connections": (
        "PostgreSQL has no connection left: close other sessions, or lower the threads of the profile."
    ),
    rf"(?!.*{_TARGET_FULL}).*No space left on device": "The disk is full. To see how much is free: invoke doctor",
    _TARGET_FULL: f"The folder /opt/dbt/target in the container is full, not the disk. {_RAISE_TARGET}",
}
# The messages of pip, requests, uv, curl and OpenSSL for a certificate that is not trusted.
_UNTRUSTED = re.compile(
    r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|UnknownIssuer|unable to get local issuer|self.signed certificate", re.I
)

# The errors of a system when a disk, or an account's quota, is full.
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def start_failure(title: str, why: str, *, killed: Sequence[str] = (), more_memory: str = "", old_programs: str = "") -> StackError:
    """The error for a start that failed.

    Args:
        title: what was started.
        why: the evidence: the last lines of what its services logged.
        killed: the services that lost a process to the out-of-memory killer during the start.
        more_memory: how such a service gets more.
        old_programs: how to run the old major version of PostgreSQL.
    """
    if "database files are incompatible with server" in why:
        return checks.incompatible(why, old_programs)
    if re.search(_TARGET_FULL, why):
        return NoSpace(f"The folder /opt/dbt/target in a container is full; {title} did not start.", why, _RAISE_TARGET)
    if "No space left on device" in why:
        return NoSpace(
            f"The disk is full; {title} did not start.", why, "Delete something, then: invoke up\nTo see how much is free: invoke doctor"
        )
    if killed:
        return OutOfMemory(f"{', '.join(killed)} ran out of memory and was killed; {title} did not start.", why, more_memory)
    return NotHealthy(f"{title} did not become healthy.", why, "invoke logs")


def last_lines(state: str, output: str, log: Path) -> list[str]:
    """The last lines of a service that does not start, and where its whole log is.

    Args:
        state: its state, with its name.
        output: its whole output.
        log: the file with that output.
    """
    lines = [f"  {line}" for line in COLOUR.sub("", output).splitlines() if line.strip()][-15:]
    return [f"{state}; its last lines:", *lines, f"  (more of them: {log})"] if lines else [f"{state}; it has printed nothing."]


def help_for(messages: Sequence[str]) -> list[str]:
    """Advice for a failed run that its messages lack: the messages of its nodes, each with kind and name, or its own."""
    return [help_ for pattern, help_ in _HELP.items() if any(re.search(pattern, message, re.I | re.S) for message in messages)]


def refusal(error: OSError) -> StackError | None:
    """The error for an operation that the system has refused to the command; None where no user could have caused it."""
    if error.errno in NO_ROOM:
        return NoSpace("The disk is full.", str(error), "Delete something, then look again: invoke doctor")
    if error.errno == errno.EROFS:
        return BadConfiguration(
            "The checkout is on a file system that cannot be written to.",
            str(error),
            "Copy it to a folder that you own, and type the command there.",
        )
    if isinstance(error, PermissionError):
        if os.name == "nt":
            return BadConfiguration("Windows refuses a file.", str(error), "Close the program that has it open, then try again.")
        return BadConfiguration(
            f"Your account is not allowed to read or write {error.filename or 'a file'}.",
            str(error),
            "If it is in the checkout, change its owner (sudo chown -R $USER .), or use the account that owns it.",
        )
    return None


def image_failed(name: str, output: str, base_images: Mapping[str, str]) -> BuildFailed | ImageUnavailable:
    """The error for an image that could not be built.

    Args:
        name: the image's name.
        output: the last lines that the build printed.
        base_images: the base images, by the keys of their settings.
    """
    lines = [line for line in output.splitlines() if _PULL.search(line)]
    key = next((key for key, base in base_images.items() if any(base in line for line in lines)), None)
    if key is None:
        return build_failed(f"The image {name} could not be built.", output, "invoke build")
    reason = next((reason for pattern, reason in _REASONS.items() if re.search(pattern, lines[-1], re.I)), "")
    return ImageUnavailable(
        f"The base image {base_images[key]} cannot be pulled.",
        "\n".join(filter(None, (reason, lines[-1].strip()))),
        f"Set {key} in .env to your company's mirror of it, then: invoke build\nor continue without Docker: invoke up --runtime native",
    )


def packages_failed(what: str, output: str) -> BuildFailed:
    """The error when `dbt deps` fails; without a network, with advice for that."""
    again = "Correct packages.yml, then: invoke up"
    if re.search(r"resolve|refused|timed out|unreachable|Max retries", output):
        again = "Try again with a network, or set DBT_PACKAGE_HUB_URL in .env to your company's copy of dbt's hub."
    return build_failed(what, output, again)


def build_failed(what: str, output: str, again: str) -> BuildFailed:
    """The error when a step of a build fails; if a certificate is not trusted, with advice for that."""
    if _UNTRUSTED.search(output):
        again = f"Put your company's root certificate into certs/ (see certs/README.md), then: {again}"
    return BuildFailed(what, output, again)
