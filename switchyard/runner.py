"""The only place that starts other programs: it runs them, also prints them (``invoke --echo``), or only prints them (``invoke --dry``)."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from switchyard import console

SIGNAL_TIMEOUT_S = 10  # seconds that a program has to end after each signal

# Variables in the user's shell that would make PostgreSQL's programs use another server or role, Compose other files or the old
# builder, which has no secrets, or uv other packages. The user may set where uv finds its index and its cache, and everything else
# that Docker reads.
_ELSEWHERE = re.compile(
    r"PG(?!TZ$|CLIENTENCODING$|DATESTYLE$)\w+|COMPOSE_\w+|DOCKER_BUILDKIT"
    r"|UV_(?!(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|FIND_LINKS|CACHE_DIR|CONFIG_FILE|NATIVE_TLS|SYSTEM_CERTS|HTTP\w*|REQUEST\w*"
    r"|INSECURE_HOST|OFFLINE|LINK_MODE|CONCURRENT\w*|KEYRING\w*)$)\w+"
)


@dataclass(frozen=True)
class Result:
    """How a program ended.

    Attributes:
        code: its exit code; 127 when there is no such program.
        stdout: its standard output, if captured.
        stderr: its standard error, if captured.
    """

    code: int
    stdout: str = ""
    stderr: str = ""


def shown(argv: Sequence[str]) -> str:
    """``argv`` as a line for the user's shell."""
    return subprocess.list2cmdline(argv) if os.name == "nt" else shlex.join(argv)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program as Ctrl-C would, and with stronger signals if it ignores that; then the processes that it has left behind."""
    own_group = sys.platform != "win32" and process.poll() is None and os.getpgid(process.pid) == process.pid
    numbers = [signal.SIGTERM]
    if sys.platform != "win32":
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    for number in numbers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(number)
            process.wait(SIGNAL_TIMEOUT_S)
            break
    if sys.platform != "win32" and own_group:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses it if all processes of the group have ended
            os.killpg(process.pid, signal.SIGTERM)


@contextmanager
def _alarm(seconds: float | None, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process after ``seconds``."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, _end, [process])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _interruptible(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """When this process is interrupted, end the other one too."""
    try:
        yield
    except BaseException:
        _end(process)
        raise


@contextmanager
def _output() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A temporary file, open for a program to write to, and for this process to read from.

    Not a pipe: if the reader of a pipe is killed, the program is killed too by its next line of output, in the middle of its work.
    """
    number, path = tempfile.mkstemp()
    with open(number, "wb") as sink, open(path, "rb") as source:
        if os.name != "nt":  # so that no file is left behind, however this process ends
            os.unlink(path)
        yield sink, source
    if os.name == "nt":
        with contextlib.suppress(OSError):  # a child of the program may still have it open
            os.unlink(path)


def _lines(source: BinaryIO, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Each line that the process prints, without its line end, until it has ended."""
    rest = b""
    while True:
        ended = process.poll() is not None
        *lines, rest = (rest + source.read()).split(b"\n")
        if ended and rest:
            lines.append(rest)
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip()
        if ended:
            return
        if not lines:
            time.sleep(0.02)


@dataclass(frozen=True)
class Runner:
    """Runs argv lists, never a shell.

    Attributes:
        env: variables that are added to this process's environment; their values are never printed.
        echo: print each command before it runs.
        dry: print the commands that would change something instead of running them.
        keep: file descriptors (the stack's lock) that are inherited by programs that change something.
    """

    env: Mapping[str, str]
    echo: bool = False
    dry: bool = False
    keep: tuple[int, ...] = ()

    def ask(self, argv: Sequence[str], env: Mapping[str, str] | None = None, seconds: float | None = None) -> Result:
        """Run a command that does not change the stack, even in a dry run, and capture its output.

        Args:
            argv: the command.
            env: further variables for this command.
            seconds: the timeout, after which the exit code is 124.
        """
        try:
            return self._captured(argv, env=env, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Result(124, stderr=f"{argv[0]} has not answered within {seconds:.0f} s.")

    def change(self, argv: Sequence[str], stdin: str | None = None, env: Mapping[str, str] | None = None, **options: Any) -> Result:
        """Run a command that changes something, and capture its output; ``stdin`` is never echoed.

        Args:
            argv: the command.
            stdin: what it reads.
            env: further variables for this command.
            options: of `subprocess.Popen`, such as ``cwd`` and ``user``.
        """
        return Result(0) if self._only_printed(argv) else self._captured(argv, stdin, env, echo=False, **self._apart(), **options)

    def transfer(self, argv: Sequence[str], source: BinaryIO | None, sink: BinaryIO | None, env: Mapping[str, str] | None = None) -> Result:
        """Run a command that reads from and writes to open files of any size; only standard error is captured.

        Args:
            argv: the command.
            source: what it reads; None for nothing.
            sink: what it writes to; None discards its output.
            env: further variables for this command.
        """
        if self._only_printed(argv):
            return Result(0)
        streams = {"stdin": source or subprocess.DEVNULL, "stdout": sink or subprocess.DEVNULL}
        return self._captured(argv, None, env, echo=False, **self._apart(), **streams)

    def follow(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        env: Mapping[str, str] | None = None,
        errors_apart: bool = False,
        only_env: bool = False,
        seconds: float | None = None,
        stdin: IO[bytes] | None = None,
    ) -> Result:
        """Run a command that changes something, and pass on each line as it is printed.

        Args:
            argv: the command.
            on_line: called with each line, without its line end.
            env: further variables for this command.
            errors_apart: pass on only standard output; otherwise both streams, merged.
            only_env: ``env`` is the command's whole environment.
            seconds: the timeout, after which the command is ended: as by Ctrl-C, and with stronger signals if it ignores that.
            stdin: what it reads; None for nothing.

        Returns:
            The exit code, and in ``stderr`` the last lines of the output (with ``errors_apart``: all of standard error).
        """
        if self._only_printed(argv):
            return Result(0)
        last: deque[str] = deque(maxlen=40)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors, _output() as (sink, source):
            process = subprocess.Popen(
                argv,
                stdin=stdin or subprocess.DEVNULL,
                stdout=sink,
                stderr=errors if errors_apart else subprocess.STDOUT,
                env=env if only_env else self.variables(env),
                **self._apart(),
            )
            with process, _alarm(seconds, process), _interruptible(process):
                for line in _lines(source, process):
                    last.append(line)
                    on_line(line)
            errors.seek(0)
            return Result(process.returncode, stderr=errors.read().strip() if errors_apart else "\n".join(last))

    def hand_over(self, argv: Sequence[str], env: Mapping[str, str] | None = None, only_env: bool = False, cwd: Path | None = None) -> int:
        """Run a command on this terminal, as if the user had typed it, and return its exit code.

        Args:
            argv: the command.
            env: further variables for this command.
            only_env: ``env`` is the command's whole environment.
            cwd: its folder.
        """
        if self._only_printed(argv):
            return 0
        # Ctrl-C is for the command, which may use it only to cancel a query. A handler, because the command would inherit SIG_IGN.
        came: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
        try:
            code = subprocess.run(argv, env=env if only_env else self.variables(env), cwd=cwd).returncode
        finally:
            signal.signal(signal.SIGINT, before)
        if came and code in (130, -signal.SIGINT):  # the command was ended by it
            raise KeyboardInterrupt
        return code

    def detach(self, argv: Sequence[str], log: Path, env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes] | None:
        """Start a command that outlives this one and gets no signals of this terminal; None in a dry run.

        Args:
            argv: the command.
            log: the file to which both of its streams are appended.
            env: its whole environment.
            options: of `subprocess.Popen`, such as ``cwd`` and ``user``.
        """
        if self._only_printed(argv):
            return None
        windows = 0
        if sys.platform == "win32":
            windows = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        with open(log, "ab") as stream:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
                creationflags=windows,
                **options,
            )

    def _apart(self) -> dict[str, Any]:
        """Options for `subprocess.Popen`, for a program that changes something.

        Only this process gets Ctrl-C, and then decides what to do with the program: a rollback to the old orchestrator must not be
        interrupted.
        """
        if sys.platform == "win32":
            return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        return {"start_new_session": True, "pass_fds": self.keep}

    def _only_printed(self, argv: Sequence[str]) -> bool:
        if self.echo or self.dry:
            console.note(f"$ {shown(argv)}")
        return self.dry

    def variables(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a program: this process's without what would lead it elsewhere, the runner's own, and ``env``."""
        own = {key: value for key, value in os.environ.items() if not _ELSEWHERE.fullmatch(key)}
        return {**own, **self.env, **(env or {})}

    def _captured(
        self, argv: Sequence[str], text: str | None = None, env: Mapping[str, str] | None = None, echo: bool = True, **options: Any
    ) -> Result:
        if echo and self.echo:
            console.note(f"$ {shown(argv)}")
        try:
            given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
            done = subprocess.run(
                argv,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=self.variables(env),
                **{**given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            )
        except OSError as error:
            return Result(127, stderr=f"{argv[0]}: {error.strerror}")
        return Result(done.returncode, done.stdout or "", done.stderr)
