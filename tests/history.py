"""The commands of a chaos run with their times and results, and whether they keep the claims of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

CHANGES_POSTGRES = {"up", "down", "clean"}  # commands that may start or stop PostgreSQL
# The exit codes with which a command may fail: refused, overtaken by another one, or without an orchestrator (docs/commands.md).
REFUSED = {
    "up": {4, 7, 11, 12, 13},
    "switch": {4, 7, 8, 11, 12, 13},
    "down": {11, 13},
    "run": {1, 8, 10, 11},
    "backup": {8, 11, 18},
    "status": set(),
}


@dataclass(frozen=True)
class Event:
    """A command and its end.

    Attributes:
        began, ended: when, in seconds of one clock.
        words: what was typed after ``invoke``.
        code: its exit code; negative where it was killed.
        printed: what it printed.
        status: the output of ``status --json``; empty for other commands.
        readable: for a finished backup, whether it can be restored.
    """

    began: float
    ended: float
    words: tuple[str, ...]
    code: int
    printed: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    readable: bool = True

    @property
    def verb(self) -> str:
        """The command's name."""
        return self.words[0]

    def __str__(self) -> str:
        return f"invoke {' '.join(self.words)} ({self.began:.1f} to {self.ended:.1f} s, exit code {self.code})"


def violations(history: Sequence[Event]) -> list[str]:
    """A line for each violation of a claim. The events may be in any order."""
    return [*_codes(history), *_one_orchestrator(history), *_postgres(history), *_backups(history), *_runs(history)]


def _codes(history: Iterable[Event]) -> Iterable[str]:
    """Every command succeeds, ends with one of its own exit codes, or was killed."""
    for event in history:
        if event.code > 0 and event.code not in REFUSED[event.verb]:
            yield f"{event}: not an exit code of this command\n{event.printed}"
        if "Traceback" in event.printed:
            yield f"{event}: printed a traceback"


def _one_orchestrator(history: Iterable[Event]) -> Iterable[str]:
    """At most one orchestrator runs."""
    for event in history:
        names = {service["orchestrator"] for service in event.status.get("services", ())} - {None}
        if len(names) > 1:
            yield f"{event}: {' and '.join(sorted(names))} at once"


def _postgres(history: Sequence[Event]) -> Iterable[str]:
    """Between two `status` commands, a switch does not restart PostgreSQL; `up`, `down` and `clean` may, even if they were killed."""
    looks = sorted((event for event in history if event.status), key=lambda event: event.began)
    for before, after in pairwise(looks):
        pair = [{service["id"] for service in look.status["services"] if service["orchestrator"] is None} for look in (before, after)]
        between = [event for event in history if event.began < after.ended and event.ended > before.began]
        if pair[0] != pair[1] and not any(event.verb in CHANGES_POSTGRES for event in between):
            yield f"PostgreSQL was restarted after {', '.join(str(event) for event in between if event.verb == 'switch') or after}"


def _backups(history: Iterable[Event]) -> Iterable[str]:
    """A backup under its final name can be restored."""
    for event in history:
        if event.verb == "backup" and event.code == 0 and not event.readable:
            yield f"{event}: the file cannot be restored"


def _runs(history: Sequence[Event]) -> Iterable[str]:
    """A run that has started succeeds, unless a command with --force, or one that was killed, overlapped it."""
    for run in (event for event in history if event.verb == "run" and "http://" in event.printed and event.code in (1, 10)):
        others = [event for event in history if event is not run and event.began < run.ended and event.ended > run.began]
        if not any("--force" in event.words or event.code < 0 for event in others):
            yield f"{run}: no command was allowed to end it\n{run.printed}"
