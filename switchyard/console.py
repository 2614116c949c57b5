"""What a person sees: colours, tables, and a line that moves while something takes time."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

import colorama
from colorama import Fore, Style

from rundbt.results import COLOUR

colorama.just_fix_windows_console()

dry = False  # whether this command only shows what it would do
unread: Callable[[], None] | None = None  # if set, called instead of raising BrokenPipeError when nobody reads the output

_GLYPHS = {"ok": ("✓", "+"), "fail": ("✗", "x"), "advice": ("!", "!"), "dot": ("·", "-"), "wait": ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\")}

DOING = {
    "back up": "Backing up",
    "build": "Building",
    "cancel": "Cancelling",
    "check": "Checking",
    "compare": "Comparing",
    "generate": "Generating",
    "lock": "Locking",
    "pull": "Pulling",
    "push": "Pushing",
    "read": "Reading",
    "restore": "Restoring",
    "start": "Starting",
    "scale": "Scaling",
    "stop": "Stopping",
    "test": "Testing",
    "vacuum": "Vacuuming",
    "wait for": "Waiting for",
}


def unicode(stream: TextIO) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        "✓⠋".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def glyph(name: str) -> str:
    """The sign called ``name``, in ASCII where the terminal has no Unicode."""
    return _GLYPHS[name][0 if unicode(sys.stdout) else 1]


def paint(text: str, colour: str) -> str:
    """``text`` in ``colour``, unless NO_COLOR is set (https://no-color.org) or the output is not a terminal."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"{colour}{text}{Style.RESET_ALL}"


def say(text: str = "") -> None:
    """Print one line; characters that the terminal cannot show become question marks instead of a crash."""
    _write(("\r\033[K" if Waiting.on_screen else "") + _showable(text) + "\n")


def _showable(text: str) -> str:
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        if unread is None:
            raise
        unread()


def plain(text: str) -> None:
    """Print a line of another program's output, without its colours if this output is not a terminal."""
    say(text if sys.stdout.isatty() else COLOUR.sub("", text))


def ok(text: str) -> None:
    """Something is done."""
    say(f"{paint(glyph('ok'), Fore.GREEN)} {text}")


def done(text: str) -> None:
    """Something was done just now; a dry run, which has not done it, prints nothing."""
    if not dry:
        ok(text)


def fail(text: str) -> None:
    """Something went wrong, and the command continues."""
    say(f"{paint(glyph('fail'), Fore.RED)} {text}")


def advice(text: str) -> None:
    """Something is not as it should be, but nothing fails because of it."""
    say(f"{paint(glyph('advice'), Fore.YELLOW)} {text}")


def note(text: str) -> None:
    """Something worth knowing, in a quiet colour."""
    say(paint(text, Style.DIM))


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Aligned pairs of a label and a value."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"  {label:<{width}}  {value}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for number, row in enumerate([header, *rows]):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()
        say(f"  {paint(line, Style.DIM) if number == 0 else line}")


def confirm(question: str) -> bool:
    """Ask a yes-or-no question; anything but yes, and an end of input, is a no. A dry run shows the question and continues."""
    if dry:
        say(f"Would ask: {question}")
        return True
    try:
        return input(_showable(f"{question} [y/N] ")).strip().lower() in ("y", "yes")
    except EOFError:
        say()
        return False


class Waiting:
    """A context manager that shows what is being done, for how long, and the current step.

    On a terminal, one line is updated. Elsewhere (a pipe, a CI log), each new detail is a separate line, and dots are added to the
    last one in between. A dry run shows what would be done.

    Args:
        verb: one of `DOING`.
        what: what the verb is about; may be empty.
    """

    on_screen = False  # whether there is such a line now, which other output has to clear first

    def __init__(self, verb: str, what: str = "") -> None:
        self._what, self._detail = f"{DOING[verb]} {what}".rstrip(), ""
        self._would = f"Would {verb} {what}".rstrip()
        self._started = time.monotonic()
        self._moving = sys.stdout.isatty() and not dry
        self._stop = threading.Event()
        self._dots = False
        self._thread = threading.Thread(target=self._animate if self._moving else self._tick, daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def detail(self, text: str) -> None:
        """Show ``text`` as the current step."""
        text = text.strip()
        if text and text != self._detail:
            self._detail = text
            if not self._moving:
                self._end_dots()
                say(f"  {text}")

    def __enter__(self) -> Waiting:
        if dry:
            say(f"{self._would}:")
            return self
        if not self._moving:
            say(f"{self._what} ...")
        Waiting.on_screen = self._moving
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if dry:
            return
        self._stop.set()
        self._thread.join()
        self._end_dots()
        Waiting.on_screen = False
        if self._moving:
            _write("\r\033[K")

    def _tick(self) -> None:
        with suppress(OSError):  # nobody reads it; the next line in the main thread reports that
            while not self._stop.wait(1.5):
                sys.stdout.write("." if self._dots else "  .")
                sys.stdout.flush()
                self._dots = True

    def _end_dots(self) -> None:
        if self._dots:
            self._dots = False
            say()

    def _animate(self) -> None:
        with suppress(OSError):  # the terminal is closed
            for sign in itertools.cycle(glyph("wait")):
                width = os.get_terminal_size(sys.stdout.fileno()).columns - 1
                line = f"{sign} {self._what} {self.seconds:4.0f} s  {self._detail}"[:width]
                sys.stdout.write("\r\033[K" + _showable(line))
                sys.stdout.flush()
                if self._stop.wait(0.12):
                    return
