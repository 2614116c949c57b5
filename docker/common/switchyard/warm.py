"""A warm dbt: one process keeps dbt and the project's parse in memory, and forks a child for each dbt command.

``python -m switchyard.warm COMMAND...`` starts that process and becomes COMMAND, with which it ends. From then on ``bin/dbt``,
called as dbt is, saves dbt importing itself and reading its last parse, which take it longer than a build of a small project
takes the database. Nothing else is different: each command has a process of its own with the caller's arguments, environment,
folder, streams and signals, and in it dbt's own ``cli()``, which decides as ever whether the parse still fits the files, the
variables and the profile.

Only on Linux: a fork is not safe on macOS, whose frameworks have threads, and Windows has none. There, as wherever no server
answers, it is the plain dbt that runs.
"""

from __future__ import annotations

import ctypes
import gc
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
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from switchyard import ending, project

PARSE = "partial_parse.msgpack"
PR_SET_PDEATHSIG = 1  # of prctl(2)
PATIENCE = 5  # seconds that a client may take to say what it wants
SIGNALS = {signal.SIGINT, signal.SIGTERM}


def become(command: list[str]) -> NoReturn:
    """Start the server, with the Python that belongs to the dbt of PATH, and become ``command``."""
    dbt = shutil.which("dbt")
    if sys.platform == "linux" and dbt:
        beside = Path(dbt).with_name("python")
        python = beside if beside.exists() else sys.executable
        subprocess.Popen([python, "-m", "switchyard.warm", "--serve", str(os.getpid())], stdin=subprocess.DEVNULL)
    if os.name == "nt":  # where exec ends the process that others wait for
        sys.exit(subprocess.call(command))
    os.execvp(command[0], command)


def serve(parent: int) -> None:
    """Load dbt, and serve until the process ``parent`` ends."""
    end_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that of the parent's group; dbt's clients pass theirs on
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.path[0] = str(Path(sys.executable).parent)  # as it is for dbt
    server = Server()
    loading = threading.Thread(target=server.load, daemon=True)
    loading.start()
    loading.join()
    for _ in range(100):  # the thread may take a moment to be gone; any other one would be missing in the children
        if server.loaded and len(os.listdir("/proc/self/task")) == 1:
            server.listen()
        time.sleep(0.01)


def end_with_parent(parent: int, number: int) -> None:
    """Get the signal ``number`` when the process ``parent``, which started this one, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), number)


def freeze() -> None:
    """Keep the collector of garbage from all that is in memory now: in a forked process it would touch, and so copy, it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def compile_macros(manifest: Any) -> None:
    """Compile the macros of a dbt project now, which else every forked dbt does with those that it uses."""
    from dbt_common.clients.jinja import template_cache

    for macro in manifest.macros.values():
        template_cache.get_node_template(macro)


class Server:
    """Forks a dbt for each client that connects to the socket in the folder SWITCHYARD_TARGET_PATH.

    When it does, it has one thread and no connection to a database, or else a fork would not be safe.
    """

    def __init__(self) -> None:
        self.loaded = False
        self._target = project.target_dir()
        self._parse = b""
        self._manifest: Any = None
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by process id: its file descriptor, and its client

    def load(self) -> None:
        """Import what dbt imports by and by, and read the parse."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)  # what starts beside it goes first; of this thread alone
        import dbt.task.build
        import dbt.task.freshness  # noqa: F401
        from dbt.cli.main import dbtRunner
        from dbt.contracts.graph.manifest import Manifest

        project.adopt_baked()
        stamp = self._target / "fingerprint"
        if stamp.exists() and stamp.read_text() == project.fingerprint():
            # Once through: much of dbt's code is only made when it is first needed. With nothing to parse, it starts no threads.
            with tempfile.TemporaryDirectory() as scratch:
                paths = ["--project-dir", project.project_dir(), "--target-path", scratch, "--log-path", scratch]
                parse = ["parse", "--partial-parse-file-path", self._target / PARSE, *paths]
                dbtRunner().invoke(["--quiet", "--log-level", "none", *map(str, parse)])
        self._from_msgpack = Manifest.from_msgpack
        Manifest.from_msgpack = self._remembered
        self._refresh()
        self.loaded = True

    def _remembered(self, data: bytes, *args: Any, **kwargs: Any) -> Any:
        """Stands for ``Manifest.from_msgpack``: what is in memory, where ``data`` is what it was read from."""
        return self._manifest if data == self._parse else self._from_msgpack(data, *args, **kwargs)

    def _refresh(self) -> None:
        """Read the parse, unless it is the one in memory."""
        from dbt.adapters.factory import FACTORY
        from dbt.parser.manifest import extended_mashumuro_decoder

        with suppress(Exception):  # there is none, or one that is not this dbt's, which the client's will say
            parse = (self._target / PARSE).read_bytes()
            if parse != self._parse:
                self._manifest, self._parse = self._from_msgpack(parse, decoder=extended_mashumuro_decoder), parse
                FACTORY.load_plugin(self._manifest.metadata.adapter_type)
                compile_macros(self._manifest)
                freeze()

    def listen(self) -> None:
        """Serve until a SIGTERM comes."""
        folder = os.open(self._target, os.O_PATH)
        path = f"/proc/self/fd/{folder}/warm.sock"  # the folder's own path may be longer than a socket's can be
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a server that was killed
        umask = os.umask(0o077)
        self._listener.bind(path)
        os.umask(umask)
        self._listener.listen()
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
        """Fork a dbt as the client wants it."""
        client, _ = self._listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
        streams: list[int] = []
        try:
            length, streams, _, _ = socket.recv_fds(client, 4, 3)
            count, *words = client.recv(*struct.unpack("I", length), socket.MSG_WAITALL).split(b"\0")
            environ, (folder, *args) = words[: int(count)], words[int(count) :]
            self._refresh()
            pid = self._fork(client, streams, environ, folder, args)
        except (OSError, ValueError, struct.error):  # it went away, or is no client of ours
            client.close()
            return
        finally:
            for stream in streams:
                os.close(stream)
        descriptor = os.pidfd_open(pid)
        self._children[pid] = descriptor, client
        self._selector.register(descriptor, selectors.EVENT_READ, partial(self._ended, pid))
        self._selector.register(client, selectors.EVENT_READ, partial(self._told, pid))
        _send(client, b"+")

    def _fork(self, client: socket.socket, *request: Any) -> int:
        """Make the child that runs dbt, and return its process id."""
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child minds them as dbt does
        try:
            pid = os.fork()
            if pid == 0:
                ending.run(partial(self._child, client, server, *request))
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _child(self, client: socket.socket, server: int, *request: Any) -> None:
        self._close(client)
        end_with_parent(server, signal.SIGKILL)
        _run_dbt(*request)

    def _close(self, client: socket.socket) -> None:
        """In a child: let go of what is the server's."""
        self._selector.close()
        self._listener.close()
        client.close()
        for descriptor, other in self._children.values():
            os.close(descriptor)
            other.close()

    def _told(self, pid: int) -> None:
        """Pass on the signals that the client got; when it is gone, so is its dbt."""
        if pid not in self._children:  # it has ended this very moment
            return
        _, client = self._children[pid]
        try:
            numbers = client.recv(16)
        except OSError:
            numbers = b""
        if not numbers:
            self._selector.unregister(client)
        for number in numbers or [signal.SIGKILL]:
            with suppress(OSError):  # no signal has that number
                os.kill(pid, number)

    def _ended(self, pid: int) -> None:
        """Take note of the child's end, and tell its client."""
        _, status = os.waitpid(pid, 0)
        descriptor, client = self._children.pop(pid)
        for file in (descriptor, client):
            with suppress(KeyError):
                self._selector.unregister(file)
        os.close(descriptor)
        _send(client, struct.pack("i", os.waitstatus_to_exitcode(status)))
        client.close()


def _send(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it is gone, which the selector tells
        client.send(data, socket.MSG_NOSIGNAL)


def _run_dbt(streams: Sequence[int], environ: Sequence[bytes], folder: bytes, args: Sequence[bytes]) -> None:
    """In a child: run dbt as a process of its own would."""
    os.setpgid(0, 0)  # a signal to the server's group is not for dbt
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environb.clear()
    os.environb.update(pair.split(b"=", 1) for pair in environ)
    os.chdir(folder)
    time.tzset()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty(), write_through="PYTHONUNBUFFERED" in os.environ)
    sys.argv = ["dbt", *map(os.fsdecode, args)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from dbt.cli.main import cli

    cli(prog_name="dbt")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    else:
        become(sys.argv[1:])
