"""One stack without Docker, shared by all tests: in a copy of the checkout, with no docker on PATH."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from ..stacks import MARTS, Stack, copy_checkout, files_below


class NativeStack(Stack):
    """A checkout that has no Docker."""

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder, RUNTIME="auto", **options)

    @property
    def place(self) -> str:
        """The folder of PostgreSQL's data: if root runs the commands, it cannot be in the checkout."""
        if os.geteuid() or self.as_account:
            return str(self.folder / ".stack" / "native" / "data" / "postgres")
        return f"/var/lib/switchyard/{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}/data"

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data folder."""
        return Path(self.place, "cluster")

    @property
    def programs(self) -> Path:
        """The bundled PostgreSQL's programs."""
        place = Path(self.place)
        root = place.parent if place.name == "data" else self.folder / ".stack" / "native" / "environments" / "postgres"
        return root / "programs" / "bin"

    def started(self, service: str) -> bool:
        """Whether the service was started."""
        return (self.folder / ".stack" / "native" / "run" / f"{service}.json").exists()

    def orchestrators(self) -> set[str]:
        """The orchestrators whose processes run at this moment: each process works in its orchestrator's folder."""
        home = str(self.folder / ".stack" / "native" / "data")
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if (folder := process.cwd()).startswith(home + os.sep):  # read once: it may change
                    found.add(Path(folder).relative_to(home).parts[0])
        return found - {"postgres"}

    def ask(self, query: str) -> str:
        """The result of a query as PostgreSQL's superuser; for polling, this is faster than `invoke sql` each time."""
        return ask_as(self, "postgres", "airflow", query)

    def leftovers(self) -> list[psutil.Process]:
        """Every process of the stack that does not end within 10 seconds."""
        return psutil.wait_procs(self.processes(), 10)[1]

    def stored(self) -> list[Path]:
        """Those of the folders for the server's data and programs that exist."""
        return [path for path in (Path(self.place), self.programs) if path.exists()]

    def processes(self) -> list[psutil.Process]:
        """Every process that works in this checkout's folders, or in its server's."""
        places = (str(self.folder), str(Path(self.place).parent))
        found = []
        for process in psutil.process_iter():
            try:
                touched = [process.cwd(), *process.cmdline()]
                if process.status() != psutil.STATUS_ZOMBIE and any(text.startswith(places) for text in touched):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend every process of the stack for the time of the block."""
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def exposed(self) -> list[str]:
        """What other accounts or machines could reach: sockets open to the network, and readable files with a secret in them."""
        base = self.folder / ".stack"
        assert base.stat().st_mode & 0o77 == 0
        sockets = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it has ended since
                sockets += process.net_connections()
        addresses = [ip_address(one.laddr.ip) for one in sockets if one.status == psutil.CONN_LISTEN]
        assert len(addresses) >= 2
        found = [str(address) for address in addresses if not (getattr(address, "ipv4_mapped", None) or address).is_loopback]
        places = {folder: files_below(base / "native" / folder) for folder in ("data", "run", "logs")}
        for path in [self.folder / ".env", *places["data"], *places["run"], *places["logs"]]:
            # A data file may contain a secret if only its owner can read it; a record or a log has no reason to.
            with suppress(FileNotFoundError):  # a temporary file
                private = path not in places["run"] + places["logs"] and path.stat().st_mode & 0o77 == 0
                if path.is_file() and not private and self.leaked(path.read_bytes().decode("latin-1")):
                    found.append(str(path))
        return found

    def root(self, service: str) -> psutil.Process:
        """The process of a service, as `status` shows it."""
        return psutil.Process(next(int(entry["id"]) for entry in self.status()["services"] if entry["name"] == service))

    def states(self) -> dict[str, tuple[str, str | None]]:
        """State and health of each service."""
        return {entry["name"]: (entry["state"], entry["health"]) for entry in self.status()["services"]}


def ask_as(stack: NativeStack, role: str, database: str, query: str, code: int = 0, password: str = "") -> str:
    """The output of psql for a role, with its own password or another one."""
    argv = [
        str(stack.programs / "psql"),
        "-XAtqh127.0.0.1",
        f"-p{stack.ports['POSTGRES_PORT']}",
        f"-U{role}",
        f"-d{database}",
        f"-c{query}",
    ]
    own = stack.secrets()["POSTGRES_PASSWORD" if role == "postgres" else f"{role.upper()}_DB_PASSWORD"]
    done = subprocess.run(argv, env={**stack.env, "PGPASSWORD": password or own}, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout.strip()


def warm_dbt_answers(folder: Path) -> bool:
    """Whether a warm dbt accepts requests at its socket in ``folder``; the file may exist after it has ended, or before it listens."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        place = os.open(folder, os.O_PATH)
        try:
            client.connect(f"/proc/self/fd/{place}/warm.sock")  # the folder's own path may be too long for a socket
            return True
        finally:
            os.close(place)
    return False


@contextmanager
def removed(stack: NativeStack) -> Iterator[NativeStack]:
    """Remove the whole stack at the end; if that fails, kill its processes all the same."""
    try:
        yield stack
    finally:
        try:
            stack.remove()
        finally:
            for process in stack.processes():
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="package")
def stack(tmp_path_factory, root, bare_path) -> Iterator[NativeStack]:
    """The stack, with Dagster up and the pipeline run once; everything of it is removed at the end."""
    folder = (tmp_path_factory.mktemp("native") / "switchyard").resolve()
    copy_checkout(root, folder)
    stack = NativeStack(folder, PATH=bare_path)
    with removed(stack):
        first = stack.invoke("up", "--orch", "dagster")
        assert "Using the native runtime" in first.stdout
        stack.invoke("run")
        yield stack


@pytest.fixture(scope="package")
def reference(stack) -> dict[str, tuple[int, str]]:
    """The marts, which are the same in every runtime."""
    assert stack.hashes() == MARTS
    return MARTS
