"""PostgreSQL 16 without Docker, driven by its own initdb, pg_ctl and psql."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from switchyard import bootstrap, caller, checks, console, diagnosis, environments, neighbours
from switchyard.errors import EngineMissing, NotHealthy, StackError, still_starting
from switchyard.runner import Result, Runner, shown
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.processes import alive
from switchyard.runtimes.runtime import POSTGRES, OnLine
from switchyard.settings import Settings

MAJOR = "16"
ACCOUNTS = (POSTGRES, "_postgres", "nobody")
SUPERUSER = "postgres"
ZONE = "Asia/Calcutta"  # many clients still send this name at login; see docker/postgres/Dockerfile
PROGRAMS = ("postgres", "initdb", "pg_ctl", "psql")
STOP_TIMEOUT_S = 60
# Printed when the loader of Windows does not find a library.
MISSING_DLL = " A DLL is missing; the bundled programs need Microsoft's Visual C++ Redistributable."
_PLACES = Path("/var/lib/switchyard")  # for root
CTYPE = {"linux": "C.UTF-8", "darwin": "en_US.UTF-8"}.get(sys.platform, "C")


class Postgres:
    """The stack's own server.

    Args:
        settings: the checkout's settings.
        runner: what starts programs.
        environ: the caller's environment.
    """

    def __init__(self, settings: Settings, runner: Runner, environ: Mapping[str, str]) -> None:
        self.settings, self.runner = settings, runner
        self.env = caller.inherited(environ)
        self.folders = plan.Folders(settings.root, POSTGRES)
        self.account = _account()
        self.log = plan.base(settings.root) / "logs" / f"{POSTGRES}.log"
        self._chosen = plan.base(settings.root) / "postgres-place"  # has the name of root's folder
        # PostgreSQL refuses to run as root, and the account that it uses instead cannot read .stack, and perhaps not the parents of
        # the checkout. So for root, its files are where system services keep theirs.
        if self.account:
            self.place = self._place()
            self.home, self.programs = self.place / "data", self.place / "programs"
        else:
            self.place = self.home = self.folders.home
            self.programs = self.folders.installed / "programs"
        self.data = self.home / "cluster"

    def _place(self) -> Path:
        """Root's folder for this checkout: neither what a deleted one at the same path has left, nor that of one it was copied from."""
        root = str(self.settings.root)
        first = hashlib.sha256(root.encode()).hexdigest()[:12]
        own = None
        if self._chosen.exists():
            own = _PLACES / self._chosen.read_text(encoding="utf-8").strip()
        elif self.log.exists():  # started by a version that wrote no name
            own = _PLACES / first
        if own:
            owner = own / "checkout"
            if not owner.exists() or owner.read_text(encoding="utf-8").strip() == root:
                return own
        return next(place for name in neighbours.numbered(first) if not (place := _PLACES / name).exists())

    def claim(self) -> None:
        """Make root's folder, and keep its name, and whose it is."""
        self._chosen.parent.mkdir(parents=True, exist_ok=True)
        self._chosen.write_text(f"{self.place.name}\n", encoding="utf-8")
        for folder in (self.place.parent, self.place):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # whatever the umask
        (self.place / "checkout").write_text(f"{self.settings.root}\n", encoding="utf-8")

    # Its programs

    def current(self) -> bool:
        """Whether the programs are installed and current."""
        return bool(self.settings["STACK_PG_BIN"]) or (environments.current(self.settings, POSTGRES, None) and self.programs.exists())

    def build(self, *, cache: bool, on_line: OnLine) -> None:
        """Install the programs; a running server is stopped when the new ones are ready."""
        if self.account and not self.runner.dry:
            self.claim()
        environments.unpack_postgres(self.settings, self.programs, self.runner, cache=cache, on_line=on_line, before=self.stop)

    def tidy(self) -> None:
        """Delete the folder outside of the checkout if neither data nor programs are left in it."""
        if self.account and not self.home.exists() and not self.programs.exists() and self.place.exists():
            shutil.rmtree(self.place)

    def require_programs(self) -> None:
        """Make sure that the programs can run on this machine.

        Raises:
            EngineMissing: one lacks a system library, or has another version.
        """
        if self.runner.dry:
            return
        for name in PROGRAMS:
            found = self.runner.ask([self.program(name), "--version"])
            if found.code:
                reason = found.stderr.strip() or f"{name} ends with {found.code:#x}." + (MISSING_DLL if found.code == 0xC0000135 else "")
                raise EngineMissing(
                    "PostgreSQL's programs cannot run on this machine.",
                    reason,
                    "Install what is missing, or install PostgreSQL 16 (Debian, Ubuntu: postgresql-16; Homebrew: postgresql@16)\n"
                    "and set STACK_PG_BIN in .env to the folder of its programs, such as /usr/lib/postgresql/16/bin.",
                )
            if f" {MAJOR}." not in found.stdout:
                raise EngineMissing(
                    f"The programs in STACK_PG_BIN are not PostgreSQL {MAJOR}'s.",
                    f"{self.program(name)} is {found.stdout.strip()}.",
                    f"Set STACK_PG_BIN in .env to the folder of PostgreSQL {MAJOR}'s programs, or to nothing.",
                )

    def require_major(self) -> str:
        """Make sure that the data folder has this major version, or does not exist yet.

        Raises:
            IncompatibleData: it has another one.
        """
        note = self.data / "PG_VERSION"
        found = note.read_text(encoding="ascii").strip() if note.exists() else ""
        old = f"install PostgreSQL {found} and run its pg_dumpall on {self.data}." if found else ""
        return checks.same_major(found, MAJOR, old)

    def sizes(self) -> str:
        """The size of each database."""
        if not self.server() or not self.ready():
            return "not known while PostgreSQL is down"
        argv = self.psql(SUPERUSER, "postgres", "--port", str(self.port()), "--tuples-only", "--no-align", "--command", bootstrap.SIZES)
        found = self.runner.ask(argv, self.psql_env(SUPERUSER))
        return found.stdout.strip() or f"not known: {found.stderr.strip()}"

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's programs."""
        folder = Path(self.settings["STACK_PG_BIN"] or self.programs / "bin")
        return str(folder / (f"{name}.exe" if os.name == "nt" else name))

    # The server

    def server(self) -> psutil.Process | None:
        """The running server, or None.

        Its pid file may be left from before a crash, and another program may have the id by now. A server of this data folder is
        recognized by its working directory.
        """
        lines = self._note()
        return _server(abs(int(lines[0])), self.data) if lines else None  # it is negative in single-user mode

    def port(self) -> int | None:
        """The port of the running server, or None in its first moments."""
        lines = self._note()
        return int(lines[3]) if len(lines) > 3 else None

    def crashed(self) -> bool:
        """Whether the server ended unexpectedly."""
        return bool(self._note()) and self.server() is None

    def ready(self) -> bool:
        """Whether the running server accepts connections."""
        argv = [self.program("pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(self.port())]
        return self.runner.ask(argv).code == 0

    def start(self, script: str, timeout: int, on_line: OnLine) -> None:
        """Start the server on the port in the settings, and run the bootstrap script.

        Raises:
            NotHealthy: it does not start, or rejects the bootstrap.
            StillStarting: it is not ready after ``timeout`` seconds.
        """
        if self.server() and not self._unchanged():
            self.stop()
        if self.server() is None:
            self.require_programs()
            if not self.runner.dry:
                self._end_leftovers()
            if not self.data.exists():
                on_line("making the data folder")
                self._make_cluster()
            self._start(timeout)
        self._wait_until_ready(timeout)
        on_line("roles and databases")
        self._bootstrap(script)
        if self._ask(f"set timezone to '{ZONE}'").code:
            console.note(f"The system's time zones lack {ZONE}: a client that sends it is refused. Debian, Ubuntu: install tzdata-legacy.")

    def stop(self) -> None:
        """Stop the server, disconnecting its clients; nothing is lost.

        Raises:
            StackError: it does not stop.
        """
        if server := self.server():
            done = self._control("stop", "--mode", "fast", "--wait", "--timeout", str(STOP_TIMEOUT_S))
            if done.code == 127 and os.name == "posix":  # its programs were deleted
                server.send_signal(signal.SIGINT)  # as pg_ctl would
                with contextlib.suppress(psutil.TimeoutExpired):
                    server.wait(STOP_TIMEOUT_S)
            if done.code and self.server():
                raise StackError("PostgreSQL does not stop.", done.stderr.strip(), "invoke logs --service postgres")
        elif not self.runner.dry:
            self._end_leftovers()

    def client(self, program: str, role: str, *args: str) -> list[str]:
        """A program that connects over TCP, like every client; the password is in `psql_env`, so that no process list shows it."""
        host = ["--host", "127.0.0.1", "--port", self.settings["POSTGRES_PORT"]]
        return [self.program(program), *host, "--username", role, *args]

    def psql(self, role: str, database: str, *args: str) -> list[str]:
        """psql in one database."""
        return self.client("psql", role, "--no-psqlrc", "--dbname", database, *args)

    def psql_env(self, role: str) -> dict[str, str]:
        """The variables that a `client` needs, so that no setting of the user makes it connect elsewhere."""
        key = "POSTGRES_PASSWORD" if role == SUPERUSER else "DBT_PASSWORD"
        return {"PGPASSWORD": self.settings[key], "PGPASSFILE": os.devnull, "PGSERVICEFILE": os.devnull, "PGCONNECT_TIMEOUT": "10"}

    def _note(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def _options(self) -> dict[str, Any]:
        return {"cwd": self.home, **({"user": self.account, "group": _group(self.account), "extra_groups": []} if self.account else {})}

    def _control(self, *args: str) -> Result:
        argv = [self.program("pg_ctl"), "--pgdata", str(self.data), *args]
        return self.runner.change(argv, env=self.env, **self._options())

    def _make_cluster(self) -> None:
        """Create the data folder under a temporary name, and rename it when it is complete."""
        half_made = self.home / "half-made"
        if self.runner.dry:
            self._initdb(half_made, self.home / "password")
            return
        if self.account:
            self.claim()
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if half_made.exists():
            shutil.rmtree(half_made)
        with tempfile.TemporaryDirectory(dir=self.home) as folder:
            password = Path(folder, "password")
            password.write_text(self.settings["POSTGRES_PASSWORD"] + "\n", encoding="utf-8")
            if self.account:
                for path in (self.home, folder, password):
                    shutil.chown(path, self.account)
            done = self._initdb(half_made, password)
        if done.code:
            raise NotHealthy("PostgreSQL's data folder could not be made.", done.stderr.strip(), "invoke up")
        half_made.rename(self.data)

    def _initdb(self, folder: Path, password: Path) -> Result:
        # Text is sorted by code point, the same on every platform. Letters and their case follow Unicode.
        argv = [
            self.program("initdb"), "--pgdata", str(folder), "--username", SUPERUSER, "--pwfile", str(password),
            "--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8", "--locale", "C", "--lc-ctype", CTYPE,
            "--set", "listen_addresses=127.0.0.1", "--set", "unix_socket_directories=",
            "--set", "timezone=UTC", "--set", "log_timezone=UTC",
        ]  # fmt: skip
        return self.runner.change(argv, env=self.env, **self._options())

    def _words(self) -> list[str]:
        """The server's arguments: its port, and the arguments of the container's server in the compose file."""
        file = self.settings.root / "compose" / "docker-compose-postgres.yaml"
        words = yaml.safe_load(file.read_text(encoding="utf-8"))["services"][POSTGRES]["command"][1:]
        # On Windows, a server cannot notice that a client has disconnected, and refuses to start if it is configured to check. All clients
        # of this server are on its machine, so TCP keepalives are not needed.
        unknown = ("--tcp_", *(["--client_connection_check_interval"] if os.name == "nt" else []))
        words = [plan.expand(word, self.settings, self.folders, {}) for word in words if not word.startswith(unknown)]
        return ["-p", self.settings["POSTGRES_PORT"], *words]

    def _unchanged(self) -> bool:
        """Whether the running server has the current arguments; it records those of its start."""
        note = (self.data / "postmaster.opts").read_text(encoding="utf-8", errors="replace")
        return all(f'"{word}"' in note for word in self._words())

    def _start(self, timeout: int) -> None:
        if not self.runner.dry:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_bytes(b"")
        argv = [
            self.program("pg_ctl"), "--pgdata", str(self.data), "--wait", "--timeout", str(timeout),
            "--options", shown(self._words()), "start",
        ]  # fmt: skip
        # Its streams have to be a file: the server inherits them, and the reader of a pipe would wait until the server ends.
        process = self.runner.detach(argv, self.log, self.env, **self._options())
        if process and process.wait():
            if self.server():
                raise still_starting("PostgreSQL", timeout)
            last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
            raise diagnosis.start_failure("PostgreSQL", "\n".join(last))

    def _wait_until_ready(self, timeout: int) -> None:
        """Wait for a server that another command may have started, and that may still be recovering from a crash."""
        deadline = time.monotonic() + timeout
        while not self.runner.dry and not self.ready():
            if time.monotonic() > deadline:
                raise still_starting("PostgreSQL", timeout)
            time.sleep(0.2)

    def _bootstrap(self, script: str) -> None:
        done = self._ask(script)
        if "password authentication failed" in done.stderr:
            # .env is newer than the data folder.
            self.stop()
            self._set_password()
            self._start(60)
            done = self._ask(script)
        if done.code:
            raise NotHealthy(
                "PostgreSQL rejected the bootstrap of roles and databases.", done.stderr.strip(), "invoke logs --service postgres"
            )

    def _ask(self, script: str) -> Result:
        """Run the script in the warehouse, after creating that if it is missing."""
        name = bootstrap.WAREHOUSE
        make = bootstrap.make_database(name)
        argv = self.psql(SUPERUSER, "postgres", "--quiet", "--no-password")
        return self.runner.change(argv, f"\\set ON_ERROR_STOP on\n{make}\n\\connect {name}\n{script}", self.psql_env(SUPERUSER))

    def _set_password(self) -> None:
        """Set the superuser's password to the one in ``.env``, in single-user mode, which needs no password; the server is stopped."""
        statement = f"alter role {SUPERUSER} password {bootstrap.literal(self.settings['POSTGRES_PASSWORD'])}\n"
        self.runner.change([self.program("postgres"), "--single", "-D", str(self.data), "postgres"], statement, self.env, **self._options())

    def _end_leftovers(self) -> None:
        """Clean up after a killed server: end the processes of its connections, which work in its data folder, and delete its pid file.

        Once no process works in the folder, the pid file is stale. But if another program has the process id by now, PostgreSQL
        would take that program for a server and refuse to start.
        """
        left = [process for process in psutil.process_iter() if _server(process.pid, self.data)]
        _, left = psutil.wait_procs(left, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        (self.data / "postmaster.pid").unlink(missing_ok=True)


def _server(pid: int, data: Path) -> psutil.Process | None:
    """The process ``pid``, if it belongs to a server and works in ``data``."""
    try:
        process = psutil.Process(pid)
        ours = process.name().startswith("postgres") and os.path.realpath(process.cwd()) == os.path.realpath(data)
        return process if ours and alive(process) else None
    except psutil.Error:
        return None


def _account() -> str | None:
    """The account for the server if root starts it; None if it runs under the caller's account."""
    if sys.platform == "win32" or os.getuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ACCOUNTS if name in known), None)


def _group(account: str) -> int:
    if sys.platform == "win32":  # `_account` returns None there
        raise NotImplementedError
    import pwd

    return pwd.getpwnam(account).pw_gid
