"""The checks before a start, where the first problem stops the command, and in `invoke doctor`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from rundbt import project_files
from switchyard import ports
from switchyard.errors import BadConfiguration, BadUsage, EngineMissing, IncompatibleData, NoSpace, OutOfMemory, PortInUse
from switchyard.runner import Runner

COMPOSE_NEEDED = (2, 24, 4)  # the first with `!override`, which --baked uses: https://docs.docker.com/reference/compose-file/merge/
ENGINE_TIMEOUT_S = 20  # after which an engine that hangs counts as not started
# Bytes. PostgreSQL's write-ahead log takes up to max_wal_size, by default 1 GB, and PostgreSQL stops when it cannot write it.
DISK_NEEDED = 1 << 30
MIB = 1 << 20

_TEXTS = {".sh", ".py", ".sql", ".yaml", ".yml", ".toml", ".txt"}


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        what: what is checked, in a few words.
        run: returns the result as text, or raises a `StackError`.
        advice: whether a problem is only reported, and a start continues.
    """

    what: str
    run: Callable[[], str]
    advice: bool = False


def no_docker(platform: str = sys.platform) -> EngineMissing:
    """The error where the command ``docker`` is not installed."""
    product = "Docker Engine (https://docs.docker.com/engine/install/)" if platform == "linux" else "Docker Desktop"
    next_ = f"Install {product}, or: invoke up --runtime native"
    return EngineMissing("Docker not found.", "The command docker is not on the PATH.", next_)


def no_answer(stderr: str, platform: str = sys.platform) -> EngineMissing:
    """The error where the engine does not answer: not permitted, or not started."""
    if re.search("permission denied|access is denied", stderr, re.I):
        return EngineMissing(
            "You are not permitted to use the Docker engine.",
            stderr,
            {
                "linux": "sudo usermod -aG docker $USER   (then sign out and in again)",
                "win32": "net localgroup docker-users $env:USERNAME /add   (PowerShell as administrator; then sign out and in again)",
            }.get(platform, "Start Docker Desktop from your own account."),
        )
    start = {"linux": "sudo systemctl start docker   (or start Docker Desktop)", "darwin": "open -a Docker"}
    return EngineMissing("The Docker engine does not answer.", stderr, start.get(platform, "Start Docker Desktop."))


def compose_version(code: int, text: str) -> str:
    """The version of Compose, from the output of `docker compose version --short`.

    Raises:
        EngineMissing: Compose is not installed, or too old.
    """
    install = "Install the package docker-compose-plugin, version {}.{}.{} or newer; or update Docker Desktop.".format(*COMPOSE_NEEDED)
    if code:
        raise EngineMissing("Docker has no compose plugin.", "`docker compose version` fails.", install)
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if found and tuple(map(int, found.groups())) < COMPOSE_NEEDED:
        raise EngineMissing(f"Docker's compose plugin is too old: {text.strip()}.", "The compose files use newer features.", install)
    return text.strip()


def account() -> str:
    """The name of the account that runs the command.

    Raises:
        BadConfiguration: it has no name, as with any user id in a container; PostgreSQL's programs and Airflow then do not start.
    """
    if sys.platform == "win32":
        return os.environ.get("USERNAME", "")
    import pwd  # Windows does not have it

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise BadConfiguration(
            f"The account {os.geteuid()} has no name on this machine.",
            "PostgreSQL's programs and Airflow do not start without one.",
            "Use an account that has one, or add a line for it to /etc/passwd; with Docker it needs none.",
        ) from None


def folders(root: Path, project: Path, *, native: bool) -> str:
    """The folder of the checkout, after checking its path and that of the dbt project for characters that do not work.

    Args:
        root: the checkout.
        project: the dbt project.
        native: whether programs run from the checkout, instead of in containers, which mount the project.

    Raises:
        BadConfiguration: a path has such a character.
    """
    control = (r"[\x00-\x1f]", "A line of .env cannot hold it.")
    wrong = [(root, *control), (project, *control)]
    if native:
        wrong.append(
            (root, re.escape(os.pathsep), "It separates folders in the variable PATH, to which folders of the checkout are added.")
        )
        wrong.append((root, "%", "Dagster's and Prefect's migrations interpret what follows it as a placeholder."))
        wrong += [(root, r"\$", "Airflow interprets what follows it as a variable.")] if os.name != "nt" else []
    elif os.name != "nt":
        wrong.append((project, ":", "Compose interprets what follows it as the path in the container."))
    for path, pattern, why in wrong:
        if found := re.search(pattern, str(path)):
            raise BadConfiguration(f"The path {str(path)!r} has the character {found[0]!r}.", why, "Rename the folder, or move it.")
    return str(root)


def make_folder(folder: Path, command: str, mode: int = 0o777) -> None:
    """Make a folder to write to, if it does not exist.

    Args:
        folder: the folder, perhaps as a user typed it.
        command: the command that accepts another folder as ``--out``.
        mode: the mode of a new folder.

    Raises:
        BadUsage: it is a file, or one of its parents is.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadUsage(f"{folder} cannot be a folder.", error.strerror or str(error), f"{command} --out ANOTHER_FOLDER") from None


def publishers(port: int, runner: Runner) -> list[tuple[str, str]]:
    """Compose project and name of each container that publishes ``port``; empty where no engine answers."""
    project = '{{.Label "com.docker.compose.project"}}'
    found = runner.ask(["docker", "ps", "--filter", f"publish={port}", "--format", f"{project}\t{{{{.Names}}}}"], seconds=ENGINE_TIMEOUT_S)
    lines = found.stdout.splitlines() if found.code == 0 else []
    return [(project, name) for project, _, name in (line.partition("\t") for line in lines)]


def port_in_use(key: str, port: int, publishing: Sequence[tuple[str, str]]) -> PortInUse:
    """The error for a port that another program holds; with the container or the process, if the system shows it."""
    holder = ports.holder(port)
    if publishing:
        who = f"The container {publishing[0][1]} publishes it."
    elif holder:
        who = f"{_name(holder)} (process {holder.pid}) listens on it."
    else:
        who = "Another program on this machine listens on it."
    return PortInUse(f"Port {port} ({key}) is in use.", who, f"Free the port, or set {key} in .env to another one.")


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "Another program"


def memory(title: str, needed: int, freed: int, available: int) -> str:
    """Make sure that there is enough memory to start something.

    Args:
        title: what is started.
        needed: MiB that it takes; 0 where it was not measured.
        freed: MiB that will be freed when the active orchestrator stops.
        available: MiB that are available now.

    Raises:
        OutOfMemory: there is too little.
    """
    if needed - freed > available:
        raise OutOfMemory(
            f"There is too little memory for {title}: it needs {needed:,} MiB, and {available + freed:,} MiB are available.",
            "The system kills a service that runs out of memory.",
            "Close other programs, or give Docker Desktop more in Settings, Resources.",
        )
    shown = f"{needed:,} MiB" if needed else "an amount that was not measured"
    return f"{title} needs {shown}, {available + freed:,} MiB are available"


def postgres_cache(buffers: str, total: int) -> None:
    """Make sure that a server with a cache of this size can start.

    Args:
        buffers: its shared_buffers, such as 512MB.
        total: MiB of memory that the engine has; on many machines that is a VM with part of the machine's memory.

    Raises:
        OutOfMemory: the cache takes more than half of that.
    """
    cache = int(buffers.removesuffix("MB"))
    if cache > total // 2:
        raise OutOfMemory(
            f"PostgreSQL's cache would take {cache:,} MiB, and the Docker engine has {total:,} MiB.",
            "It is a quarter of POSTGRES_MEMORY, which by default is a quarter of this machine's memory.",
            f"Set POSTGRES_MEMORY={max(100, total // 4)} in .env, or give Docker Desktop more in Settings, Resources.",
        )


def disk(place: Path) -> str:
    """Make sure that the disk is not nearly full.

    Args:
        place: a folder on that disk, which need not exist yet.

    Raises:
        NoSpace: less than `DISK_NEEDED` is free.
    """
    while not os.path.exists(place):  # Path.exists fails below a folder of another account that is private
        place = place.parent
    free = psutil.disk_usage(str(place)).free
    if free < DISK_NEEDED:
        raise NoSpace(
            f"The disk is nearly full: {free // MIB:,} MiB are free in {place}.",
            f"PostgreSQL's write-ahead log needs at least {DISK_NEEDED // MIB:,} MiB.",
            "Delete files, or Docker's leftovers: docker image prune, docker builder prune",
        )
    return f"{free // MIB:,} MiB free in {place}"


def same_major(found: str, program: str, old_programs: str) -> str:
    """Make sure that the data has the major version of the PostgreSQL that is to open it.

    Args:
        found: the data folder's PG_VERSION; empty where there is no data yet.
        program: the major version of the programs.
        old_programs: how to run the old major version.

    Raises:
        IncompatibleData: it has another.
    """
    if found and program and found != program:
        raise incompatible(f"It was made by PostgreSQL {found}, and this is PostgreSQL {program}.", old_programs)
    return f"of PostgreSQL {found}" if found else "none yet"


def incompatible(why: str, old_programs: str) -> IncompatibleData:
    """The error where PostgreSQL cannot open the data."""
    return IncompatibleData(
        "The data is of another PostgreSQL version.", why,
        f"To get the data out: {old_programs}\nTo start with none: invoke clean --volumes --no-backup",
    )  # fmt: skip


def windows_line_ends(root: Path) -> str:
    """Make sure that no file that a container reads has Windows line ends.

    Raises:
        BadConfiguration: some files have them.
    """
    found = [
        path
        for folder in ("compose", "docker", "rundbt", "dbt_project")
        for path in project_files.walk(root / folder)
        if path.is_file() and (path.suffix in _TEXTS or path.name == "Dockerfile") and b"\r\n" in path.read_bytes()
    ]
    if found:
        raise BadConfiguration(
            f"{len(found)} files have Windows line endings, such as {found[0].relative_to(root).as_posix()}.",
            "Another program changed them: git keeps line endings (.gitattributes). They make images and runs differ.",
            "git config core.autocrlf false, then clone again; or for your own files: git add --renormalize .",
        )
    return "as they should be"


def oom_kills() -> int:
    """The number of processes that this machine's out-of-memory killer has ended since boot; 0 where it is not known."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))
