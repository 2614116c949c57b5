"""A warm dbt: one process keeps dbt and the project's parse in memory, and forks a child for each dbt command.

``python -m rundbt.warm COMMAND...`` starts that process and then becomes COMMAND; both end together. From then on ``bin/dbt``,
which is called like dbt, does not have to import dbt and read its last parse. For a small project, these take longer than the
database needs for the build. Nothing else changes: each command has its own process with the caller's arguments, environment,
folder, streams and signals. It runs dbt's own ``cli()``, which decides whether the parse still fits the files, the variables and
the profile.

Everything that is used of dbt's internals is in ``rundbt/dbt_internals.py``. If the installed dbt is not what that module expects, the
plain dbt runs, and one line in the log has the reason.

It works on Linux only: a fork is not safe on macOS, whose frameworks have threads, and Windows has no fork. There, and wherever no
server answers, the plain dbt runs.
"""

from __future__ import annotations

import ctypes
import io
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rundbt import dbt_internals, project_files, quick_exit

if sys.platform != "win32":
    import resource

    LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]

PR_SET_PDEATHSIG = 1  # of prctl(2)
SIGNALS = {signal.SIGINT, signal.SIGTERM}
NOT_RUN = 256  # the answer to a client for which no process could be started
LARGEST = 1 << 24  # bytes of a request: more than the kernel allows for a command line and an environment
CREDENTIALS = ("Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp")  # of proc_pid_status(5)


class Refused(Exception):
    """A client that has to run the plain dbt; the text has the reason."""


def find_dbt(path: str | None) -> str | None:
    """The first dbt in ``path``, a list of folders, that is not ``bin/dbt`` itself."""
    for folder in (path or os.defpath).split(os.pathsep):
        dbt = shutil.which("dbt", path=folder)
        if dbt and not os.path.samefile(dbt, project_files.DROP_IN):
            return os.path.realpath(dbt)
    return None


def exec_command(command: list[str]) -> NoReturn:
    """Start the server, with the Python of the dbt on PATH, and become ``command``."""
    dbt = find_dbt(os.environ.get("PATH"))
    if sys.platform == "linux" and dbt:
        beside = Path(dbt).with_name("python")
        python = str(beside) if beside.exists() else sys.executable
        serve = [python, "-m", "rundbt.warm", "--serve", str(os.getpid()), dbt]
        subprocess.Popen(serve, stdin=subprocess.DEVNULL, env=project_files.variables_without_secrets())
    project_files.exec_command(command, os.environ)


def say(text: str) -> None:
    """Log a line."""
    print(f"warm dbt: {text}; the plain dbt runs", file=sys.stderr, flush=True)


# Everything below runs on Linux only, so its types are checked only there.
assert not TYPE_CHECKING or sys.platform == "linux"


def serve(parent: int, dbt: str, cold: bool) -> None:
    """Load dbt, and serve until the process ``parent`` ends.

    Args:
        parent: the id of the process that started this one.
        dbt: the executable that this process runs in place of.
        cold: leave out what may start threads.
    """
    end_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to the parent's whole group; clients pass on their own
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.path[0] = str(Path(dbt).parent)  # as for dbt
    server = Server(dbt)
    loading = threading.Thread(target=server.load, args=[cold], daemon=True)
    loading.start()
    loading.join()
    if server.problem:
        say(server.problem)
        return
    for _ in range(100):  # the thread may take a moment to end; any other thread would be missing in the children
        threads = len(os.listdir("/proc/self/task"))
        if threads == 1:
            server.listen()
        time.sleep(0.01)
    if not cold:
        os.execv(sys.executable, [sys.executable, "-m", "rundbt.warm", *sys.argv[1:], "cold"])
    say(f"loading dbt has left {threads} threads, and a fork would have only one")


def end_with_parent(parent: int, number: int) -> None:
    """Get the signal ``number`` when the process ``parent``, which started this one, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), number)


class Request:
    """A client's request, received in parts."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.files: list[int] = []  # its standard streams and its folder
        self._missing = 0
        self._data = bytearray()

    def receive(self) -> bool:
        """Read what has arrived, and return whether the request is complete.

        Raises:
            OSError, ValueError: the client has disconnected, or is not `bin/dbt`.
        """
        if not self.files:
            length, self.files, _, _ = socket.recv_fds(self.client, 4, 4)
            if len(length) != 4 or len(self.files) != 4:
                raise ValueError("no request")
            (self._missing,) = struct.unpack("I", length)
            if self._missing > LARGEST:
                raise ValueError("too much")
            return False
        data = self.client.recv(self._missing)
        if not data:
            raise ConnectionError
        self._data += data
        self._missing -= len(data)
        return self._missing == 0

    def understand(self, dbt: str) -> None:
        """Parse the request, and check whether a child of this process can run with the client's rights, environment and limits.

        Raises:
            Refused: it cannot.
            OSError, ValueError: the client has disconnected, or is not `bin/dbt`.
        """
        count, *words = bytes(self._data).split(b"\0")
        self.environ = dict(pair.split(b"=", 1) for pair in words[: int(count)])
        self.args = words[int(count) :]
        pid, uid, _ = struct.unpack("3i", self.client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid() or not pid:
            raise Refused("the caller is another user, or in another container")
        own, its = _status(os.getpid()), _status(pid)
        if any(own.get(key) != its.get(key) for key in CREDENTIALS):
            raise Refused("the caller has other rights")
        if find_dbt(os.fsdecode(self.environ.get(b"PATH", b""))) != dbt:
            raise Refused("the caller has another dbt on its PATH")
        for name in sorted(self.environ.keys() | os.environb.keys()):
            if self.environ.get(name) != os.environb.get(name) and dbt_internals.FIXED.fullmatch(os.fsdecode(name)):
                raise Refused(f"the caller has another {os.fsdecode(name)}")
        self.umask = int(its["Umask"], 8)
        self.nice = os.getpriority(os.PRIO_PROCESS, pid)
        self.processors = os.sched_getaffinity(pid)
        self.limits = {number: resource.prlimit(pid, number) for number in LIMITS}
        self.limits = {number: limit for number, limit in self.limits.items() if limit != resource.getrlimit(number)}
        more = [_size(hard) > _size(resource.getrlimit(number)[1]) for number, (_, hard) in self.limits.items()]
        if os.geteuid() and (any(more) or self.nice < os.getpriority(os.PRIO_PROCESS, 0)):
            raise Refused("the caller has higher limits")

    def close(self) -> None:
        for file in self.files:
            os.close(file)
        self.files = []

    def run(self) -> None:
        """In a child: run dbt as a separate process would."""
        os.setpgid(0, 0)  # so that a signal to the server's group does not reach dbt
        *streams, folder = self.files
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.fchdir(folder)
        self.close()
        os.umask(self.umask)
        os.sched_setaffinity(0, self.processors)
        if self.nice != os.getpriority(os.PRIO_PROCESS, 0):
            os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        for number, limit in self.limits.items():
            resource.setrlimit(number, limit)
        os.environb.clear()
        os.environb.update(self.environ)
        time.tzset()
        tempfile.tempdir = None  # so that it is read from the new environment
        for output in (sys.stdout, sys.stderr):
            if isinstance(output, io.TextIOWrapper):
                output.reconfigure(line_buffering=output is sys.stderr or output.isatty(), write_through="PYTHONUNBUFFERED" in os.environ)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        dbt_internals.run([os.fsdecode(word) for word in self.args])


def _status(pid: int) -> dict[str, str]:
    """The lines of proc_pid_status(5), by their names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _size(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


class Server:
    """Forks a dbt for each client that connects to the socket in the folder SWITCHYARD_TARGET_PATH.

    At that time it has one thread and no connection to a database; otherwise a fork would not be safe.
    """

    def __init__(self, dbt: str) -> None:
        self.problem = ""
        self._dbt = dbt
        self._target = project_files.target_dir()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._requests: set[Request] = set()  # those without a dbt yet
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by process id: its pidfd and its client
        self._refused: set[str] = set()

    def load(self, cold: bool) -> None:
        """Import what dbt imports over time, and read the parse; set ``problem`` if that fails."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)  # this thread only: other starting processes go first
        try:
            dbt_internals.check()
            dbt_internals.ask_no_network()
            project_files.adopt_baked()
            if not cold:
                with suppress(OSError):  # a full disk, for example: the first dbt then does what is left
                    dbt_internals.warm_up(self._target)
            self._parse = dbt_internals.Parse(self._target)
            self._parse.refresh()
        except dbt_internals.UnknownDbt as error:
            self.problem = str(error)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"

    def listen(self) -> None:
        """Serve until a SIGTERM arrives."""
        folder = os.open(self._target, os.O_PATH)
        path = f"/proc/self/fd/{folder}/warm.sock"  # the folder's full path may be too long for a socket
        with suppress(FileNotFoundError):
            os.unlink(path)  # left by a server that was killed
        umask = os.umask(0o077)
        self._listener.bind(path)
        os.umask(umask)
        self._listener.listen()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        try:
            while True:
                for key, _ in self._selector.select():
                    key.data()
        finally:
            with suppress(OSError):
                os.unlink(path)
            self._listener.close()
            for pid in self._children:
                os.kill(pid, signal.SIGINT)
            for pid in list(self._children):
                self._ended(pid)

    def _accept(self) -> None:
        try:
            request = Request(self._listener.accept()[0])
        except OSError:  # it has disconnected, or there are too many
            return
        request.client.setblocking(False)
        self._requests.add(request)
        self._selector.register(request.client, selectors.EVENT_READ, partial(self._step, request, self._receive))

    def _step(self, request: Request, step: Callable[[Request], None]) -> None:
        """Do ``step``. A client that fails or disconnects is dropped; if it is still there, it runs the plain dbt."""
        try:
            step(request)
        except BlockingIOError:
            return
        except Refused as reason:
            if str(reason) not in self._refused:
                self._refused.add(str(reason))
                say(str(reason))
            self._drop(request)
        except (OSError, ValueError, KeyError):
            self._drop(request)

    def _drop(self, request: Request) -> None:
        self._forget(request)
        request.client.close()

    def _forget(self, request: Request) -> None:
        self._requests.discard(request)
        with suppress(KeyError):
            self._selector.unregister(request.client)
        request.close()

    def _receive(self, request: Request) -> None:
        """Receive the client's request; when it is complete, accept it."""
        if request.receive():
            request.understand(self._dbt)
            self._parse.refresh()
            self._selector.modify(request.client, selectors.EVENT_READ, partial(self._step, request, self._start))
            request.client.send(b"+", socket.MSG_NOSIGNAL)

    def _start(self, request: Request) -> None:
        """Fork the dbt, if the client still wants it."""
        if request.client.recv(1) != b"!":
            raise ConnectionError
        try:
            pid = self._fork(request)
        except OSError:
            _send(request.client, struct.pack("i", NOT_RUN))
            raise
        self._forget(request)
        descriptor = os.pidfd_open(pid)
        self._children[pid] = descriptor, request.client
        self._selector.register(descriptor, selectors.EVENT_READ, partial(self._ended, pid))
        self._selector.register(request.client, selectors.EVENT_READ, partial(self._pass_on_signals, pid))

    def _fork(self, request: Request) -> int:
        """Make the child that runs dbt, and return its process id."""
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child handles them as dbt does
        try:
            pid = os.fork()
            if pid == 0:
                quick_exit.run(partial(self._child, request, server))
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _child(self, request: Request, server: int) -> None:
        end_with_parent(server, signal.SIGKILL)
        self._let_go(request)
        request.run()

    def _let_go(self, request: Request) -> None:
        """In a child: close the files of the server and of other clients."""
        self._selector.close()
        self._listener.close()
        for descriptor, client in self._children.values():
            os.close(descriptor)
            client.close()
        for other in self._requests:
            other.client.close()
            if other is not request:
                other.close()

    def _pass_on_signals(self, pid: int) -> None:
        """Pass on the client's signals to its dbt, and kill that dbt when the client has disconnected."""
        if pid not in self._children:  # it has just ended
            return
        _, client = self._children[pid]
        try:
            numbers = client.recv(16)
        except BlockingIOError:
            return
        except OSError:
            numbers = b""
        if not numbers:
            self._selector.unregister(client)
        for number in numbers or [signal.SIGKILL]:
            with suppress(OSError):  # no signal has that number
                os.kill(pid, number)

    def _ended(self, pid: int) -> None:
        """Remove a child that has ended, and report its exit code to its client."""
        _, status = os.waitpid(pid, 0)
        descriptor, client = self._children.pop(pid)
        for file in (descriptor, client):
            with suppress(KeyError):
                self._selector.unregister(file)
        os.close(descriptor)
        _send(client, struct.pack("i", os.waitstatus_to_exitcode(status)))
        client.close()


def _send(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # the client has disconnected; the selector reports that
        client.send(data, socket.MSG_NOSIGNAL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), sys.argv[3], cold="cold" in sys.argv[4:])
    else:
        exec_command(sys.argv[1:])
