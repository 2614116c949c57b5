"""``.env`` as one frozen object: defaults, validation, and secrets that are generated at first use."""

from __future__ import annotations

import base64
import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from rundbt import jobs
from switchyard import ports, release
from switchyard.errors import BadConfiguration

PROJECT_NAME = "switchyard"
_PROJECT_NAME_KEY = "COMPOSE_PROJECT_NAME"

# The placeholders for secrets in .env.example, and how to make the secrets. All are URL-safe, so that no parser, shell or
# connection URL can misread them. A Fernet key is 32 bytes in padded base64; Airflow needs 64 bytes for its JWTs.
_MAKERS = {
    "<password>": lambda: secrets.token_urlsafe(18),
    "<key>": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "<long-key>": lambda: secrets.token_urlsafe(64),
}
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_URL_SAFE = re.compile(r"[A-Za-z0-9._~-]+")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WORDS = (
    ("RUNTIME", re.compile("auto|docker|native"), "auto, docker or native"),
    ("POSTGRES_MEMORY", re.compile("|[1-9][0-9]{2,6}"), "a number of MiB, 100 at least, or nothing"),
    ("LOCK_TIMEOUT", re.compile("0|[1-9][0-9]{0,5}"), "a number of seconds, or 0 for no end"),
    ("WORKERS", re.compile("|0|[1-9][0-9]?"), "a number from 0 to 99"),
    ("NETWORK", re.compile("bridge|overlay"), "either bridge or overlay"),
    ("RETENTION_DAYS", re.compile("[1-9][0-9]{0,3}"), "a number of days"),
    ("INTEGRATION", re.compile("vendor|lean"), "either vendor or lean"),
    ("WAREHOUSE", re.compile("auto|shared|own"), "auto, shared or own"),
    (_PROJECT_NAME_KEY, re.compile(r"[a-z0-9][a-z0-9_-]*"), "small letters, digits, - and _, a letter or digit first"),
)
_SWITCH = re.compile("true|false")  # the values of each key whose default is one of them
_WEBHOOK = re.compile(r"|https?://[^\s/]\S*")
_LINE_END = re.compile(r"\r\n|\r|\n")  # the line ends that both readers of the file accept
_MISSPELT = 0.85  # how similar two keys are: DAGSTER_PROT is a typo of DAGSTER_PORT, PREFECT_HOST a key of the user


@dataclass(frozen=True)
class Settings:
    """The settings of one checkout.

    Attributes:
        root: the checkout's folder.
        values: every key of ``.env.example`` with its effective value, the keys of `postgres_memory` and of a release, RETENTION_SECONDS,
            SWITCHYARD_SOURCE_PATH (the full path of the dbt project) and SWITCHYARD_JOBS (digits that change with its jobs).
        compose_name: the compose project's name, which every container, network and volume of the stack carries.
        saved: whether they are in ``.env``, and not only in memory, as before the file is written.
    """

    root: Path
    values: Mapping[str, str]
    compose_name: str
    saved: bool = True

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def port(self, key: str) -> int:
        """The TCP port under ``key``, which has been validated."""
        return int(self.values[key])

    @property
    def env_file(self) -> Path:
        """The file with the secrets; the null device where there is none."""
        return self.root / ".env" if self.saved else Path(os.devnull)

    @property
    def compose_env(self) -> Path:
        """The file that Compose finds by itself beside the compose files; the null device where nothing was started yet."""
        path = self.root / "compose" / ".env"
        return path if self.saved and path.exists() else Path(os.devnull)

    def write_for_compose(self) -> None:
        """Write every value, derived ones included, where Compose finds it, for `docker compose` typed by hand."""
        own = dotenv_values(self.env_file, interpolate=False)
        values = {**own, **self.values, _PROJECT_NAME_KEY: self.compose_name}
        lines = [f"{key}={for_compose(value or '')}" for key, value in sorted(values.items())]
        text = "\n".join(["# Written by invoke. Edit .env in the folder above instead.", *lines, ""])
        path = self.root / "compose" / ".env"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            _write_private(path, text, new=False)
        keep_private(path)

    @property
    def _started(self) -> Path:
        return self.root / ".stack" / "ports.json"

    def remember_ports(self, keys: Sequence[str]) -> None:
        """Record the ports under ``keys`` with which the stack is started: ``.env`` may be edited while it is up."""
        with contextlib.suppress(OSError):  # a full disk; nothing fails without the record
            self._started.parent.mkdir(mode=0o700, exist_ok=True)
            self._started.write_text(json.dumps({key: self.values[key] for key in keys}), encoding="utf-8")

    def forget_ports(self) -> None:
        """Delete the record of `remember_ports`, once everything is down."""
        self._started.unlink(missing_ok=True)

    def as_started(self) -> tuple[Settings, list[str]]:
        """The settings, with the ports that the running stack still listens on, and a message for each port that has changed since."""
        try:
            started = dict(json.loads(self._started.read_text(encoding="utf-8")))
            other = {key: port for key, port in started.items() if self.values.get(key) != port and not ports.free(int(port))}
        except (OSError, TypeError, ValueError):
            return self, []
        lines = [f"{key} is now {self.values[key]}; the running stack keeps {port} until the next invoke up" for key, port in other.items()]
        return replace(self, values={**self.values, **other}), lines


def defaults(root: Path, environ: Mapping[str, str]) -> Settings:
    """The settings without ``.env``, for checks when it cannot be read; no secrets.

    Keys in ``environ`` override the defaults, unless one of them is invalid: then all of them are ignored.
    """
    example = dotenv_values(root / ".env.example", interpolate=False)
    values = {**{key: value or "" for key, value in example.items()}, _PROJECT_NAME_KEY: PROJECT_NAME}
    wanted = {key: environ.get(key) or value for key, value in values.items()}
    try:
        # Placeholders of secrets are not checked.
        _check_values({key: value for key, value in wanted.items() if not value.startswith("<")}, values)
    except BadConfiguration:
        wanted = values
    compose_name = wanted.pop(_PROJECT_NAME_KEY)
    wanted["WORKERS"] = wanted["WORKERS"].lstrip("0")  # as in `load`
    return Settings(root, {**wanted, "SWITCHYARD_SOURCE_PATH": _source(root, wanted)}, compose_name, saved=False)


def load(
    root: Path, environ: Mapping[str, str], *, write: bool = True, released: bool = True, chosen: Mapping[str, str] | None = None
) -> tuple[Settings, list[str]]:
    """Read ``.env``, after creating or completing it from ``.env.example``.

    Args:
        root: the checkout's folder.
        environ: the process's environment; a key set there wins over ``.env``, as it does for Docker Compose.
        write: False leaves the file as it is, or missing.
        released: False leaves out the release that RELEASE_FILE names.
        chosen: values to set in a new ``.env``.

    Returns:
        The settings, and the keys for which secrets were just written to ``.env`` (usually none).

    Raises:
        BadConfiguration: a line of ``.env`` cannot be read, a value is invalid, or there is no such release.
    """
    example = (root / ".env.example").read_text(encoding="utf-8")
    path = _place(root)
    there = path.exists()
    known = defaults(root, {}).values
    text = _read(path, example)
    for key, value in () if there or not chosen else chosen.items():
        text = _with(text, key, value)
    _check_lines(text, {*known, _PROJECT_NAME_KEY})
    completed, made = complete(text, example)
    if made and write:
        try:
            _write_private(path, completed, new=not there)
        except FileExistsError:  # another command was first
            return load(root, environ, released=released)
    if write and there:
        keep_private(path)

    in_file = dotenv_values(stream=io.StringIO(completed), interpolate=False)
    values = {key: environ.get(key) or in_file.get(key) or known[key] or "" for key in known}
    compose_name = environ.get(_PROJECT_NAME_KEY) or in_file.get(_PROJECT_NAME_KEY) or PROJECT_NAME
    _check_values({**values, _PROJECT_NAME_KEY: compose_name}, known)
    values.update(postgres_memory(values["POSTGRES_MEMORY"]))
    values["WORKERS"] = values["WORKERS"].lstrip("0")  # the compose files test whether it is empty
    values["RETENTION_SECONDS"] = str(int(values["RETENTION_DAYS"]) * 86400)  # Prefect's unit
    if not released:
        values["RELEASE_FILE"] = ""
    if values["RELEASE_FILE"]:
        found = release.read(release.noted(root, values["RELEASE_FILE"]))
        values |= found.settings(root)
        values["REDIS_IMAGE"] = environ.get("REDIS_IMAGE") or in_file.get("REDIS_IMAGE") or found.broker or values["REDIS_IMAGE"]
    values["SWITCHYARD_SOURCE_PATH"] = _source(root, values)
    # A release's jobs change with its images.
    values["SWITCHYARD_JOBS"] = "" if values["RELEASE_FILE"] else _jobs(Path(values["SWITCHYARD_SOURCE_PATH"]))
    return Settings(root, values, compose_name, saved=there or write), made


def keep_private(path: Path) -> None:
    """Remove other accounts' permissions from a file or folder; on Windows the folder that it is in sets them."""
    mode = path.stat().st_mode
    if os.name == "posix" and mode & 0o077:
        with contextlib.suppress(PermissionError):  # it belongs to another account
            path.chmod(stat.S_IMODE(mode) & 0o700)


def _jobs(project: Path) -> str:
    """Digits that change with the project's jobs, so that `up` restarts what creates deployments for them; empty without jobs."""
    with contextlib.suppress(OSError):
        return hashlib.sha256((project / jobs.FILE).read_bytes()).hexdigest()[:12]
    return ""


def _source(root: Path, values: Mapping[str, str]) -> str:
    """The dbt project's folder; a relative path is relative to the checkout."""
    return os.path.normpath(root / os.path.expanduser(values["DBT_PROJECT"]))


def for_compose(value: str) -> str:
    """A value for a file that only Compose reads: single quotes keep a value literally, but cannot contain a single quote."""
    if "'" not in value and not value.endswith("\\"):  # Compose would take it as an escape of the quote
        return f"'{value}'"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{quoted}"'


def assign(root: Path, key: str, value: str) -> None:
    """Set ``key`` in ``.env``: in its line, in place of its commented default, or in a new line.

    The other lines do not change, except that the file then has Unix line ends and no byte order mark.
    """
    path = _place(root)
    _write_private(path, _with(path.read_text(encoding="utf-8-sig"), key, value), new=False)


def _with(text: str, key: str, value: str) -> str:
    """The text of ``.env`` with ``key`` set."""
    _check_control(key, value)
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    line = f"{key}={value}" if re.fullmatch(r"[\w./~:@+-]*", value) else f"{key}='{quoted}'"
    lines = _LINE_END.split(text.removesuffix("\n"))
    places = [number for number, old in enumerate(lines) if (match := _ASSIGNMENT.match(old)) and match[1] == key]
    places += [number for number, old in enumerate(lines) if old.startswith(f"#{key}=")]
    if places:
        lines[places[0]] = line
    else:
        lines.append(line)
    return "\n".join(lines) + "\n"


def fresh(example: str) -> str:
    """A new ``.env``: ``example`` with a # before each default, so that a later version can change its defaults."""

    def shown(line: str) -> str:
        match = _ASSIGNMENT.match(line)
        return f"#{line}" if match and match[2] not in _MAKERS else line

    return "\n".join(map(shown, _LINE_END.split(example)))


def complete(text: str, example: str) -> tuple[str, list[str]]:
    """Fill in each secret that is empty or a placeholder in ``text``, and add the secrets of ``example`` that it lacks.

    Everything else in ``text``, comments included, is unchanged.

    Returns:
        The completed text, and the keys for which a secret was made.
    """
    secret = {match[1]: match[2] for match in map(_ASSIGNMENT.match, example.splitlines()) if match and match[2] in _MAKERS}
    made: list[str] = []
    present: set[str] = set()

    def filled(line: str) -> str:
        match = _ASSIGNMENT.match(line)
        if not match:
            return line
        key = match[1]
        present.add(key)
        kind = dotenv_values(stream=io.StringIO(line), interpolate=False).get(key) or secret.get(key, "")  # without quotes and comment
        if kind not in _MAKERS:
            return line
        made.append(key)
        return f"{key}={_MAKERS[kind]()}"

    lines = [filled(line) for line in _LINE_END.split(text.removesuffix("\n"))]
    lines += [filled(f"{key}=") for key in secret if key not in present]
    return "\n".join(lines) + "\n", made


def _place(root: Path) -> Path:
    """The path of ``.env``. If it is a link, it stays one: its target is read and written.

    Raises:
        BadConfiguration: the link is broken.
    """
    path = root / ".env"
    if not path.is_symlink():
        return path
    if not path.exists():
        raise BadConfiguration(
            f".env links to {os.readlink(path)}, which is not there.", "", "Make that file available, or remove the link: rm .env"
        )
    return path.resolve()


def _read(path: Path, example: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return fresh(example)
    except UnicodeDecodeError as error:
        why = f"Byte {error.start + 1} is not valid UTF-8."
        raise BadConfiguration(".env is not a text in UTF-8.", why, "Save it as UTF-8, without other encodings.") from None
    except OSError as error:
        hint = "Move it away; the next command writes a new one." if path.is_dir() else "sudo chown $USER .env && chmod 600 .env"
        raise BadConfiguration(".env cannot be read.", error.strerror or str(error), hint) from None


def _check_lines(text: str, known: Collection[str]) -> None:
    """Make sure that every line is an assignment that python-dotenv and Docker Compose can both read.

    They still differ in details; the commands pass the values as read here to Compose, as variables, which win.
    """
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text, newline="")):
        if binding.key is None and not binding.error:
            continue
        source = binding.original.string.lstrip()
        blank = binding.original.string.removesuffix(source)
        number = binding.original.line + len(_LINE_END.findall(blank))  # the parser's number is that of the blank lines before
        match = _ASSIGNMENT.match(source)
        if binding.error or match is None:
            raise BadConfiguration(
                f".env cannot be read: line {number} is not KEY=value.",
                f"The line begins: {_LINE_END.split(source)[0].partition('=')[0][:40]}",
                "Correct the line, or put # before it.",
            )
        key, value = match.groups()
        if "$" in (binding.value or "") and not value.startswith("'"):
            raise BadConfiguration(
                f".env line {number}: the value of {key} has a $.",
                "Docker Compose interprets it as a variable.",
                f"Put the value in single quotes: {key}='...'",
            )
        if key in lines:
            raise BadConfiguration(
                f".env has {key} twice, in the lines {lines[key]} and {number}.", "Only one can count.", "Delete one of the lines."
            )
        lines[key] = number
    for key in lines.keys() - known:
        for near in difflib.get_close_matches(key.upper(), known, n=1, cutoff=_MISSPELT):
            raise BadConfiguration(
                f".env line {lines[key]}: {key} is not a setting; did you mean {near}?",
                "It looks like a typo, and would have no effect.",
                f"Rename it to {near}, or to something less similar.",
            )


def _check_control(key: str, value: str) -> None:
    if _CONTROL.search(value):
        raise BadConfiguration(
            f"The value of {key} has an invalid character.", "It is a control character, or not valid text.", f"Set {key} in .env."
        )


def _check_values(values: Mapping[str, str], default: Mapping[str, str]) -> None:
    """Make sure that every value is valid for its key, whose ``default`` shows whether it is true or false.

    Raises:
        BadConfiguration: one is not.
    """
    used: dict[str, str] = {}
    for key, value in values.items():
        _check_control(key, value)
        if value in _MAKERS:
            raise BadConfiguration(
                f"The value of {key} is {value}, for which .env gets a random secret.",
                "The placeholder is public, so it is not a secret.",
                f"Set {key} to another value, or remove it from the shell's environment.",
            )
        # These passwords are part of a connection URL.
        if key.endswith(("_DB_PASSWORD", "REDIS_PASSWORD")) and not _URL_SAFE.fullmatch(value):
            if not value:
                raise BadConfiguration(f"{key} has no value.", ".env.example has no placeholder for it.", f"Write {key}=<password> there.")
            raise BadConfiguration(
                f"{key} has a character that is special in a connection URL.",
                "Letters, digits and - . _ ~ are allowed.",
                f"Set {key} in .env to another value, or clear it to get a new one.",
            )
        if key.endswith("_PORT"):
            if not _PORT.fullmatch(value) or int(value) > 65535:
                raise BadConfiguration(
                    f"{key} is {value[:40]!r}, which is not a port.", "A port is a number from 1 to 65535.", f"Set {key} in .env."
                )
            if other := used.get(value):
                raise BadConfiguration(
                    f"{other} and {key} are both {value}.", "Each service needs a port of its own.", f"Set {key} in .env to a free port."
                )
            used[value] = key
    if not _WEBHOOK.fullmatch(values["ALERT_WEBHOOK"]):  # a secret, which the message does not show
        raise BadConfiguration(
            "ALERT_WEBHOOK is not the address of a webhook.",
            "It begins with https:// or http://, or is empty.",
            "Set ALERT_WEBHOOK in .env.",
        )
    switches = [(key, _SWITCH, "either true or false") for key, value in default.items() if _SWITCH.fullmatch(value)]
    for key, pattern, allowed in (*_WORDS, *switches):
        if key in values and not pattern.fullmatch(values[key]):  # a checkout without Airflow need not have INTEGRATION
            raise BadConfiguration(f"{key} is {values[key][:40]!r}.", f"It is {allowed}.", f"Set {key} in .env.")


def postgres_memory(wanted: str) -> dict[str, str]:
    """PostgreSQL's memory settings in the compose file, for ``wanted`` MiB; by default a quarter of this machine's memory.

    The shares are those that PostgreSQL's manual starts from: a quarter for its own cache, the rest for the system's cache of its
    files. A sort or hash may take a 64th; dbt's four threads run a few at once, and parallel ones share theirs in ``/dev/shm``.
    """
    if not wanted:
        import psutil

        wanted = str(max(1024, psutil.virtual_memory().total // 4 >> 28 << 8))  # in steps, so that it is the same after a restart
    shares = {"SHARED_BUFFERS": 4, "EFFECTIVE_CACHE_SIZE": 2, "WORK_MEM": 64, "MAINTENANCE_WORK_MEM": 8, "SHM_SIZE": 2}
    memory = int(wanted)
    return {"POSTGRES_MEMORY": wanted, **{f"POSTGRES_{name}": f"{memory // share}MB" for name, share in shares.items()}}


def _write_private(path: Path, text: str, *, new: bool) -> None:
    """Write ``path`` atomically, readable only by its owner (mkstemp makes the file 0600); a ``new`` file never replaces another.

    Raises:
        FileExistsError: ``path`` should be new, but exists.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".env.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # after a power cut, an empty file would be filled with new secrets
        if new:
            try:
                os.link(temporary, path)
                return
            except FileExistsError:
                raise
            except (OSError, NotImplementedError):  # some file systems have no links, and report that with various errors
                pass
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
