"""A stack to measure on: a copy of the checkout, with its own compose project and ports. Yours is never touched."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from switchyard import ROOT, bootstrap, checks, command_lock, console, neighbours, orchestrators, ports, settings
from switchyard.errors import BadUsage, StackError
from switchyard.orchestrators import Orchestrator
from switchyard.runner import Runner
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.override import override
from switchyard.runtimes.docker.runtime import Docker
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.host import located
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import WholeRuntime

# Unique to this checkout: another checkout may be measured at the same time.
CHECKOUT_HASH = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
PROJECT = f"switchyard-bench-{CHECKOUT_HASH}"
RUNTIMES = ("docker", "native")
# These override the user's settings: a run that fails there sends no alert, and dbt runs without workers. WORKERS is empty for none, as in
# the compose files, because some rows of the comparison call `docker compose` directly.
ALONE = {"ALERT_WEBHOOK": "", "WORKERS": "", "NETWORK": "bridge"}
COMMAND_TIMEOUT_S = 3600  # enough for a build with ten million orders


def kill(pid: int) -> None:
    """Kill a process and all that it has started: otherwise, a process that is left would keep the stack's lock."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()


class Rig:
    """A stack to measure on.

    Args:
        folder: the copy of the checkout.
        runtime: ``docker`` or ``native``.
        only: the orchestrators to measure; empty for all.
        name: of its compose project.
        variables: its settings, which override the shell's.
    """

    def __init__(
        self, folder: Path, runtime: str, only: Sequence[str] = (), name: str = PROJECT, variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.runtime, self.only, self.name = folder, runtime, only, name
        self.orchestrators: dict[str, Orchestrator] = orchestrators.load_all(folder)
        keys = ("POSTGRES_PORT", *(orchestrator.ui_port for orchestrator in self.orchestrators.values()))
        own = {key: str(port) for key, port in zip(keys, ports.unused_ports(len(keys)))}
        fixed = {"COMPOSE_PROJECT_NAME": name, "RUNTIME": runtime, "NO_COLOR": "1", "PYTHONUTF8": "1"}
        self.env = {**os.environ, **(variables or {}), **own, **ALONE, **fixed}

    @cached_property
    def settings(self) -> settings.Settings:
        """The settings from the copy's `.env` and the variables in `env`."""
        return settings.load(self.folder, self.env)[0]

    @cached_property
    def driver(self) -> WholeRuntime:
        """The runtime itself, for operations that no command has."""
        runner = Runner({**self.settings.values, "COMPOSE_PROJECT_NAME": self.name})
        if self.runtime == "docker":
            return Docker(self.settings, self.orchestrators, runner, self.env)
        return Native(self.settings, self.orchestrators, runner, self.env)

    def possible(self) -> list[str]:
        """The orchestrators that can run here."""
        return [name for name, orchestrator in self.orchestrators.items() if not self.driver.unsupported(orchestrator)]

    def names(self) -> list[str]:
        """The possible orchestrators that are to be measured."""
        return [name for name in self.possible() if not self.only or name in self.only]

    def argv(self, *args: str) -> list[str]:
        """The command line of `invoke ARGS`."""
        return [sys.executable, "-m", "invoke", *args]

    def invoke(self, *args: str, stdin: str = "") -> str:
        """Type `invoke ARGS` in the copy, and return its output.

        Raises:
            StackError: it fails.
        """
        return self.command(self.argv(*args), stdin)

    def command(self, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
        """Run any program in the copy, or in ``folder``, and return its output; ``env``, if given, is its whole environment.

        Raises:
            StackError: it fails, or does not end within `COMMAND_TIMEOUT_S`.
        """
        pipe = subprocess.PIPE
        place, env = folder or self.folder, env or self.env
        with subprocess.Popen(argv, cwd=place, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
            try:
                out, errors = process.communicate(stdin, COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                kill(process.pid)
                raise StackError(f"A measured command has not ended after {COMMAND_TIMEOUT_S} s: {' '.join(argv[-3:])}") from None
        if process.returncode:
            output = "\n".join((out + errors).splitlines()[-15:])
            raise StackError(f"A measured command failed with {process.returncode}: {' '.join(argv[-3:])}", output, "invoke doctor")
        return out

    def on(self, name: str | None) -> None:
        """Make ``name`` the active orchestrator; with None, only PostgreSQL stays up."""
        active = self.driver.active()
        if name is None:
            self.driver.stop_orchestrator(lambda _: None)
        elif active is None:
            self.invoke("up", "--orch", name)
        elif active != name:
            self.invoke("switch", name)

    def start(self, name: str) -> None:
        """Start an orchestrator, with PostgreSQL up, without checks and output."""
        target = self.orchestrators[name]
        if self.runtime == "docker" and not override(target, self.driver.project, baked=False):
            self.command(argv.compose(self.settings, target.file, "up", "-d", "--wait"))
        else:
            self.driver.start(target, baked=False, timeout=300, on_line=lambda _: None)

    def replace(self, old: str, new: str) -> None:
        """Replace one orchestrator with another by hand: everything in the old file down, everything in the new one up."""
        if self.runtime == "docker":
            self.command(argv.compose(self.settings, self.orchestrators[old].file, "down"))
            self.command(argv.compose(self.settings, self.orchestrators[new].file, "up", "-d", "--wait"))
        else:
            self.invoke("down")
            self.invoke("up", "--orch", new)

    def sql(self, query: str) -> str:
        """The result of a query from `invoke sql`, without the frame."""
        return self.invoke("sql", f"copy ({query}) to stdout").strip()

    def superuser(self, script: str, database: str = bootstrap.WAREHOUSE) -> str:
        """The output of psql for a script, as the superuser: one line per row, with `|` between columns."""
        options = ["--no-align", "--tuples-only", "--quiet", "--set", "ON_ERROR_STOP=1"]
        if isinstance(self.driver, Native):
            postgres = self.driver.postgres
            env = self.driver.runner.variables(postgres.psql_env("postgres"))
            return self.command(postgres.psql("postgres", database, *options), script, env)
        return self.command(argv.on_server(self.settings, argv.psql("postgres", *options, database=database)), script)

    def execute(self, name: str, command: Sequence[str], stdin: str = "") -> str:
        """Run a command where an orchestrator runs dbt: in its container or its environment."""
        orchestrator = self.orchestrators[name]
        if isinstance(self.driver, Native):
            process = orchestrator.process(orchestrator.dbt)
            env = plan.process_variables(self.settings, orchestrator, process, {}, self.env, self.driver.project)
            home = plan.Folders(self.folder, name).home  # in place of a container's working folder
            return self.command([located(command[0], env), *command[1:]], stdin, env, home)
        return self.command(argv.execute(self.settings, orchestrator.file, orchestrator.dbt, command), stdin)


@contextmanager
def rig(
    runtime: str, only: Sequence[str], name: str = PROJECT, prepare: Callable[[Path], Mapping[str, str]] = lambda _: {}
) -> Iterator[Rig]:
    """A stack that is removed afterwards, except for the caches of Docker and uv.

    Args:
        runtime: ``docker`` or ``native``.
        only: the orchestrators to measure; empty for all.
        name: of its compose project.
        prepare: called with the folder of the copy before anything is read there; returns its settings.

    Raises:
        EngineMissing: there is no such runtime here.
        Locked: another command of this checkout uses the stack with that name.
    """
    with command_lock.alone(ROOT, name), tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        copy = Path(folder).resolve()
        copy_checkout(ROOT, copy)
        made = Rig(copy, runtime, only, name, prepare(copy))
        made.driver.require()
        if runtime == "docker":
            remove_leftovers(name)
        try:
            yield made
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave everything behind
            try:
                for args in (["down", "--force"], ["clean", "--volumes", "--images", "--no-backup", "--yes"]):
                    done = subprocess.run(
                        made.argv(*args), cwd=made.folder, env=made.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        encoding="utf-8", start_new_session=True,
                    )  # fmt: skip
                    if done.returncode:
                        console.fail(f"invoke {' '.join(args)} of {name} failed, so parts of it are left:\n{done.stdout.strip()}")
            finally:
                signal.signal(signal.SIGINT, before)


def remove_leftovers(project: str) -> None:
    """Remove what a killed command has left of a compose project: it belonged to another folder, so no other command removes it."""
    for listing, removal in (("ps --all --quiet", "rm --force"), ("volume ls --quiet", "volume rm"), ("network ls --quiet", "network rm")):
        argv = ["docker", *listing.split(), "--filter", f"label={neighbours.COMPOSE_PROJECT_LABEL}={project}"]
        if found := subprocess.check_output(argv, text=True).split():
            subprocess.check_output(["docker", *removal.split(), *found])
    images = ["docker", "image", "ls", "--quiet", "--filter", f"label={neighbours.COMPOSE_PROJECT_LABEL}={project}"]
    if found := sorted(set(subprocess.check_output(images, text=True).split())):
        subprocess.check_output(["docker", "image", "rm", "--force", *found])


def copy_checkout(root: Path, folder: Path) -> None:
    """Copy the files of the checkout ``root`` that git knows or would add into ``folder``; links stay links, nested repositories do not.

    Raises:
        BadUsage: it is not a clone, or git is not installed.
    """
    for name in filter(None, git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
        if (root / name).is_symlink() or (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name, follow_symlinks=False)


def git(root: Path, *args: str) -> str:
    """The output of git in the checkout ``root``.

    Raises:
        BadUsage: it is not a clone, or git is not installed.
    """
    try:
        return subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        raise BadUsage(f"git cannot list the files of {root}, and only files that it lists are copied.", why, "git clone URL") from None


def possible() -> list[str]:
    """The runtimes that are available here."""
    return [name for name in RUNTIMES if name != "docker" or Runner({}).ask(["docker", "version"]).code == 0]


def where(runtime: str) -> dict[str, Any]:
    """The commit and the machine (for Docker Desktop, the virtual one), as context for the figures."""
    system, cores, memory = platform.system(), os.cpu_count(), psutil.virtual_memory().total
    if runtime == "docker":
        answer = Runner({}).ask(["docker", "info", "--format", "{{.OperatingSystem}}|{{.NCPU}}|{{.MemTotal}}"]).stdout.strip()
        if answer.count("|") == 2:
            name, ncpu, total = answer.split("|")
            system, cores, memory = (system if name == system else f"{system}, {name}"), int(ncpu), int(total)
    return {
        "commit": git(ROOT, "describe", "--always", "--dirty").strip(),
        "machine": {"system": system, "cores": cores, "memory_mib": memory // checks.MIB},
    }
