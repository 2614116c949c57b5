"""What was typed in a chaos run, when, and what came of it; and whether it keeps what docs/reliability.md claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

CHANGES_POSTGRES = {"up", "down", "clean"}  # commands that may start or stop PostgreSQL
# How a command may end besides well: refused, overtaken by another one, or without an orchestrator (docs/commands.md).
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
        status: of ``status --json``, what that says; else nothing.
        readable: of a backup that is done, whether PostgreSQL's own program reads the file.
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
    """A line for each claim that the history breaks, in any order of the events; none where it keeps all of them."""
    return [*_codes(history), *_one_orchestrator(history), *_postgres(history), *_backups(history), *_runs(history)]


def _codes(history: Iterable[Event]) -> Iterable[str]:
    """Every command ends well, or is refused in a way that it has, or was killed."""
    for event in history:
        if event.code > 0 and event.code not in REFUSED[event.verb]:
            yield f"{event}: no way for this command to end\n{event.printed}"
        if "Traceback" in event.printed:
            yield f"{event}: printed a traceback"


def _one_orchestrator(history: Iterable[Event]) -> Iterable[str]:
    """At most one orchestrator runs."""
    for event in history:
        names = {service["orchestrator"] for service in event.status.get("services", ())} - {None}
        if len(names) > 1:
            yield f"{event}: {' and '.join(sorted(names))} at once"


def _postgres(history: Sequence[Event]) -> Iterable[str]:
    """Between two looks, a switch leaves PostgreSQL alone. A killed command, too, may have been one that stops it."""
    looks = sorted((event for event in history if event.status), key=lambda event: event.began)
    for before, after in pairwise(looks):
        pair = [{service["id"] for service in look.status["services"] if service["orchestrator"] is None} for look in (before, after)]
        between = [event for event in history if event.began < after.ended and event.ended > before.began]
        if pair[0] != pair[1] and not any(event.verb in CHANGES_POSTGRES for event in between):
            yield f"PostgreSQL is another one after {', '.join(str(event) for event in between if event.verb == 'switch') or after}"


def _backups(history: Iterable[Event]) -> Iterable[str]:
    """A backup that has its name can be read."""
    for event in history:
        if event.verb == "backup" and event.code == 0 and not event.readable:
            yield f"{event}: the file cannot be read"


def _runs(history: Sequence[Event]) -> Iterable[str]:
    """A run that has begun ends well, unless a command with --force was there, or the stack was killed under it."""
    for run in (event for event in history if event.verb == "run" and "http://" in event.printed and event.code in (1, 10)):
        others = [event for event in history if event is not run and event.began < run.ended and event.ended > run.began]
        if not any("--force" in event.words or event.code < 0 for event in others):
            yield f"{run}: nobody was permitted to end it\n{run.printed}"
