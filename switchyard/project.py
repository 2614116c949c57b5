"""The user's dbt project: its folder, its connection, and the parts that the orchestrators get. It is only read, never written."""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from rundbt import jobs, project_files
from switchyard import ROOT, bootstrap, console, orchestrators, release
from switchyard.errors import BadConfiguration
from switchyard.settings import Settings, assign
from switchyard.settings import load as load_settings

FILE = "dbt_project.yml"
SHOP = "dbt_project"  # the folder of the project that comes with the checkout
PROFILE_SECRET = "DBT_ENV_SECRET_PROFILE_"  # the prefix of the variable for a secret from a profile
TYPED = ("python", "-m", "rundbt.typed")  # runs a dbt command that a person types
FILES = "/opt/dbt/files"  # where containers have the files that a profile names
SHARED, OWN, AUTO = "shared", "own", "auto"
PACKAGE_FILES = ("packages.yml", "dependencies.yml", "package-lock.yml")
DBT_VERSION = re.compile(r"^dbt-core==(\S+)", re.M)
LOCAL = ("", "localhost", "127.0.0.1", "::1", "host.docker.internal")

# How dbt reaches the shared server, on either runtime; the values are in the environment (docker/, switchyard/runtimes/native/plan.py).
CONNECTION = {
    "host": "{{ env_var('DBT_HOST') }}",
    "port": "{{ env_var('DBT_PORT') | int }}",
    "user": "{{ env_var('DBT_USER') }}",
    "password": "{{ env_var('DBT_ENV_SECRET_PASSWORD') }}",
    "dbname": "{{ env_var('DBT_DBNAME') }}",
}
# Keys of a connection to another server, which are left out for the stack's own.
_ELSEWHERE = {
    *("host", "port", "user", "username", "pass", "password", "dbname", "database", "role"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert"),
}
# Common adapters: a similar name may be a typo of one. Any other adapter is accepted too.
ADAPTERS = (
    *("athena", "bigquery", "clickhouse", "databricks", "duckdb", "fabric", "glue", "materialize", "mysql", "oracle"),
    *("postgres", "redshift", "snowflake", "spark", "sqlite", "sqlserver", "synapse", "teradata", "trino", "vertica"),
)
# Keys of profiles whose values are secrets, with any adapter; dbt gets these values only in its environment.
_SECRET = re.compile(r"pass|token|secret|private_key(?!_path)|credential|api_?key|access_?key|pwd", re.I)
_SECRET_NUMBER = re.compile("pass|pwd|secret", re.I)  # a number under another key is not a secret, such as the time when a token expires
_SECRET_VALUE = re.compile(r"(token|password|pwd|secret)=|://[^/@\s]+:[^/@\s]+@", re.I)  # inside a URL or a connection string
_REMOTE = re.compile(r":memory:|[a-z]\w+:", re.I)  # a DuckDB that is not a file, such as MotherDuck's md:
_ENV_VAR = re.compile(
    r"""\{\{\s*env_var\(\s*(['"])(\w+)\1\s*(?:,\s*(['"])(.*?)\3\s*)?\)\s*(?:\|\s*(?:int|as_number|as_text|as_bool)\s*)?\}\}"""
)
_ASKED = re.compile(r"""env_var\(\s*(['"])(\w+)\1\s*(,)?""")
_READ = {".yml", ".yaml", ".sql", ".py"}
# Set by the stack itself in every process that runs dbt; those of the connection only if it is to the stack's own server.
OURS = {
    *("DBT_PROFILE", "DBT_TARGET", "DBT_PROJECT_DIR", "DBT_PROFILES_DIR", "DBT_PACKAGES_PATH", "DBT_TARGET_PATH", "DBT_LOG_PATH"),
    *("PATH", "HOME", "PYTHONPATH", "TZ"),
}
OURS_WHERE_SHARED = {"DBT_HOST", "DBT_PORT", "DBT_USER", "DBT_DBNAME", "DBT_ENV_SECRET_PASSWORD"}
DBTS_OWN = ("DBT_PACKAGE_HUB_URL",)  # dbt itself reads it: the address of a company's own hub
_IDENTIFIER = re.compile(r"[^a-z0-9_]")
RESERVED_DATABASES = {"postgres", "template0", "template1", bootstrap.WAREHOUSE}


@dataclass(frozen=True)
class Project:
    """The dbt project that the orchestrators run.

    Attributes:
        folder: where its ``dbt_project.yml`` is.
        content: the content of that file.
        profile: the name of its profile.
        target: the name of the target in that profile.
        output: the connection in the orchestrators' ``profiles.yml``; without secrets.
        shared: whether it is to the stack's own PostgreSQL.
        variables: what dbt gets in its environment besides the stack's own variables; this includes secrets.
        files: by variable, the files on this machine that the profile names, such as a key.
        missing: the variables that the project uses but that are not set, with the file that uses each.
        notes: messages for the user, a sentence each.
        shop: whether it is the project that comes with the checkout.
    """

    folder: Path
    content: Mapping[str, Any]
    profile: str
    target: str
    output: Mapping[str, Any]
    shared: bool
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shop: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.content["name"])

    @property
    def adapter(self) -> str:
        """The adapter of its connection, such as postgres or duckdb."""
        return str(self.output["type"])

    @cached_property
    def database(self) -> str:
        """Its database on the shared server."""
        return database_of(self.name, self.shop)

    @cached_property
    def requirements(self) -> str:
        """The Python packages that the project needs: the adapter, and the lines of its ``requirements.txt``."""
        lines = list(_requirements(self.folder / "requirements.txt"))
        # dbt and the adapter come from the locks, whatever versions the project's file has; only the adapter's extras are used.
        name = f"dbt-{self.adapter}"
        extras = [match[1] for line in lines if (match := re.match(rf"{re.escape(name)}\s*(\[[^]]*\])", line, re.I))]
        adapter = [] if self.adapter == "postgres" else [name + "".join(extras[:1])]
        return "\n".join([*adapter, *(line for line in lines if not re.match("dbt-", line, re.I))])

    @property
    def profiles(self) -> str:
        """The text of ``profiles.yml`` for the orchestrators."""
        return yaml.safe_dump({self.profile: {"target": self.target, "outputs": {self.target: dict(self.output)}}}, sort_keys=False)

    @property
    def packages(self) -> list[dict[str, Any]]:
        """The entries of its packages files."""
        return list(_packages(self.folder))

    @property
    def needs_git(self) -> bool:
        """Whether `dbt deps` calls git."""
        return any("git" in package for package in self._all_packages())

    @property
    def needs_ssh(self) -> bool:
        """Whether `dbt deps` connects to a git server by SSH."""
        return any(re.match(r"ssh://|git@", str(package.get("git", ""))) for package in self._all_packages())

    def _all_packages(self) -> list[dict[str, Any]]:
        """The entries of its packages files, and of those of its local packages."""
        return [package for place in (self.folder, *_locals(self.folder)) for package in _packages(place)]

    def dependencies_fingerprint(self) -> str:
        """Sixteen hex digits that change whenever anything but its models would be built differently."""
        inside = str(self.content.get("packages-install-path"))
        digest = hashlib.sha256("\0".join((self.name, inside, self.profiles, self.requirements)).encode())
        for path, place in sorted((place.as_posix(), path) for path, place in _dependencies(self.folder)):
            if place == self.folder / FILE:  # its relevant keys are in the digest already
                continue
            digest.update(f"{path}\0{hashlib.sha256(place.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()[:16]

    def in_container(self) -> dict[str, str]:
        """The variables for a container, with the paths of the files there."""
        return {**self.variables, **{key: f"{FILES}/{key}" for key in self.files}}

    def shell(self) -> str:
        """The same as lines for a POSIX shell, for use in a build; never empty, because Docker does not support empty secrets."""
        return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(self.in_container().items())) or ":\n"

    @property
    def connection(self) -> str:
        """Where its data goes, for a person."""
        return f"profile {self.profile}, target {self.target} ({self.adapter})"

    def __str__(self) -> str:
        return f"{self.folder}: dbt project {self.name}, {self.connection}"


def folder(settings: Settings) -> Path:
    """The folder in DBT_PROJECT; a relative path is relative to the checkout."""
    return Path(settings["SWITCHYARD_SOURCE_PATH"])


def is_shop(settings: Settings) -> bool:
    """Whether the project is the one that comes with the checkout."""
    return folder(settings) == settings.root / SHOP or settings.values.get(release.SHOP_KEY) == "1"


def database_of(name: str, shop: bool) -> str:
    """The database of a project called ``name`` on the shared server; the shop uses the default database, which always exists."""
    if shop:
        return bootstrap.WAREHOUSE
    plain = _IDENTIFIER.sub("_", name.lower())[:50]
    return f"{plain}_dbt" if plain in RESERVED_DATABASES or plain in _databases() else plain


@cache
def _databases() -> frozenset[str]:
    """The databases in which orchestrators keep their metadata."""
    return frozenset(filter(None, (one.database for one in orchestrators.load_all(ROOT).values())))


def database(settings: Settings) -> str:
    """The project's database on the shared server; this does not read its profile.

    Raises:
        BadConfiguration: there is no project.
    """
    return database_of(str(_content(settings)["name"]), is_shop(settings))


def load(settings: Settings, environ: Mapping[str, str]) -> Project:
    """Read the project and its profile.

    Args:
        settings: the checkout's settings.
        environ: the caller's environment.

    Raises:
        BadConfiguration: there are problems that would make every start fail; the message lists all of them.
    """
    content = _content(settings)
    place, shop = folder(settings), is_shop(settings)
    lookup = _Variables(place, settings, {} if shop else environ)
    problems: list[str] = []
    notes: list[str] = []
    profile = lookup.render(str(content.get("profile") or content["name"]))
    found = _profile(place, settings, profile)
    target, output, shared = "dev", None, True
    wanted = AUTO if place == settings.root / SHOP else settings["WAREHOUSE"]
    if found is None:
        if wanted == OWN:
            problems.append(f"There is no profile called {profile!r} in {', '.join(map(str, _profile_files(place, settings)))}.")
        elif not shop:
            notes.append(f"there is no profile called {profile!r}, so it gets the stack's own PostgreSQL")
    else:
        file, body = found
        outputs = body.get("outputs")
        outputs = {str(key): value for key, value in outputs.items()} if isinstance(outputs, dict) else {}
        target = ("" if place == settings.root / SHOP else settings["DBT_TARGET"]) or lookup.render(str(body.get("target") or "default"))
        output = outputs.get(target)
        if target in outputs and not (isinstance(output, dict) and output.get("type")):
            problems.append(f"The target {target} of the profile {profile} in {file} has no type, such as postgres.")
            output = None
        elif output is None:
            near = difflib.get_close_matches(target, outputs, n=1)
            problems.append(
                f"The profile {profile} in {file} has no target {target!r} (DBT_TARGET in .env); "
                f"its targets are {', '.join(outputs) or 'none'}." + (f" Did you mean {near[0]}?" if near else "")
            )
        else:
            shared = wanted == SHARED or (wanted == AUTO and _is_local_postgres(output, lookup))
            if shared and not shop and wanted == AUTO:
                notes.append(f"{_why_shared(output, lookup)}, so it gets the stack's own; --warehouse own uses yours")
    variables: dict[str, str] = {}
    files: dict[str, Path] = {}
    if shared or output is None:
        kept = {key: value for key, value in (output or {}).items() if key not in _ELSEWHERE and key != "type"}
        if output and str(output.get("type")) != "postgres":
            kept = {key: kept[key] for key in ("schema", "threads") if key in kept}
        kept.setdefault("schema", "analytics")
        kept.setdefault("threads", 4)
        output = {"type": "postgres", **CONNECTION, **kept}
    else:
        output = _own(dict(output), lookup, variables, files, notes)
        kind = str(output["type"])
        if kind not in ADAPTERS and (near := difflib.get_close_matches(kind, ADAPTERS, n=1, cutoff=0.8)):
            notes.append(f"the profile's type is {kind}; did you mean {near[0]}?")
    if os.path.isabs(inside := str(content.get("packages-install-path") or "")):
        problems.append(
            f"packages-install-path in {FILE} is {inside}, which all projects would share; it must be a folder inside the project."
        )
    problems += [f"{key} in {FILE} is {content[key]!r}; it must be a list, such as [models]." for key in _invalid_paths(content)]
    version = _dbt_version(settings.root)
    if unfit := unfit_version(content.get("require-dbt-version"), version):
        problems.append(f"{FILE} requires dbt {unfit}, and the orchestrators have {version}.")
    # A release's packages are in its images; its project is unpacked without them.
    problems += [] if settings.values.get("RELEASE_FILE") else _wrong_packages(place)
    try:
        jobs.read(place)
    except jobs.JobsError as error:
        problems += str(error).splitlines()
    if problems:
        raise BadConfiguration(
            f"The dbt project {place} cannot be run as it is.",
            "\n".join(problems),
            "Correct that, then: invoke use " + shlex.quote(str(place)),
        )
    asked, missing = lookup.asked(output or {}, OURS | OURS_WHERE_SHARED if shared else OURS)
    return Project(place, content, profile, target, output, shared, {**asked, **variables}, files, missing, tuple(notes), shop)


def folders(project: Project) -> list[Path]:
    """The folders from which an image is built: the project's, and those of its local packages."""
    return [project.folder, *(place for place in _locals(project.folder) if not place.is_relative_to(project.folder))]


def build_folder(root: Path) -> Path:
    """The folder that `stage` fills, for builds."""
    return root / ".stack" / "build"


def built_in(project: Project) -> set[Path]:
    """The files of the project, and of its local packages, that `stage` copies."""
    own = _parts(project.folder, _secret(project))
    return {path for path in (*own, *(source for source, _ in _dependencies(project.folder))) if path.is_file()}


def _secret(project: Project) -> set[Path]:
    """The files that may contain secrets: its profile, and the files that the profile names."""
    return {project.folder / "profiles.yml", *project.files.values()}


def stage(settings: Settings, project: Project) -> Path:
    """Copy what a build needs (the project, the files of its packages, its profile) into ``.stack/build``; returns that folder.

    Docker's build context is the checkout; the project may be outside of it.
    """
    base = build_folder(settings.root)
    for name in ("project", "deps"):
        if (base / name).exists():
            project_files.remove(base / name)
    _copy(project.folder, base / "project", _secret(project))
    for source, place in _dependencies(project.folder):
        target = base / "deps" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    where = project.folder.relative_to(_root_of(project.folder)).as_posix()
    (base / "deps").mkdir(parents=True, exist_ok=True)
    (base / "deps" / ".project").write_text(where + "\n", encoding="utf-8")
    (base / "profiles").mkdir(exist_ok=True)
    new = base / "profiles" / "profiles.yml.new"
    new.write_text(project.profiles, encoding="utf-8")
    os.replace(new, base / "profiles" / "profiles.yml")  # natively, a run may be reading it now
    for path in (base / "profiles", base / "profiles" / "profiles.yml"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # an image's account has to read it, whatever the umask; .stack itself is private
    return base


def duplicate(project: Project, target: Path) -> dict[str, str]:
    """Copy the project and its local packages into ``target``, with the same relative paths, so that the copy can be edited and run.

    Args:
        project: a project on the stack's own PostgreSQL.
        target: the folder to create.

    Returns:
        The settings and variables with which a checkout has the copy as its project.
    """
    root = _root_of(project.folder)
    for place in sorted((project.folder, *_locals(project.folder))):  # a package inside another folder is copied with it
        copy = target / place.relative_to(root)
        if not copy.exists():
            _copy(place, copy, _secret(project))
    folder = target / project.folder.relative_to(root)
    (folder / "profiles.yml").write_text(project.profiles, encoding="utf-8")
    return {**project.variables, "DBT_PROJECT": str(folder), "DBT_TARGET": project.target, "WAREHOUSE": SHARED}


def use(settings: Settings, environ: Mapping[str, str], typed: str, warehouse: str | None = None, dry: bool = False) -> None:
    """Have the orchestrators run another dbt project: check it, show what was found, and write it to ``.env``.

    Args:
        settings: the checkout's settings.
        environ: the caller's environment.
        typed: the project's folder, as typed; ``shop`` is the project that comes with the checkout.
        warehouse: the value for WAREHOUSE, which is written to ``.env`` too; None leaves it unchanged.
        dry: do not change ``.env``.

    Raises:
        BadConfiguration: it cannot be run; the message lists all problems, and ``.env`` is unchanged.
    """
    settings, _ = load_settings(settings.root, environ, write=False, released=False)
    place = settings.root / SHOP if typed == "shop" else Path(os.path.abspath(os.path.expanduser(typed)))
    try:
        value = (
            SHOP if place == settings.root / SHOP else str(place) if Path(typed).is_absolute() else os.path.relpath(place, settings.root)
        )
    except ValueError:  # another drive
        value = str(place)
    noted = {"DBT_PROJECT": Path(value).as_posix(), **({"WAREHOUSE": warehouse} if warehouse else {})}
    found = load(replace(settings, values={**settings.values, **noted, "SWITCHYARD_SOURCE_PATH": str(place)}), environ)
    if dotenv_values(settings.env_file, interpolate=False).get("RELEASE_FILE"):
        noted["RELEASE_FILE"] = ""
    models = sum(
        1 for folder in _folders(place, found.content, "model-paths", "models") for kind in ("sql", "py") for _ in folder.rglob(f"*.{kind}")
    )
    for key, text in () if dry else noted.items():
        assign(settings.root, key, text)
    console.ok(f"{found.folder}: dbt project {found.name}, {models} models, {found.connection}")
    where = f"the stack's own PostgreSQL, database {found.database}" if found.shared else "the one in the profile"
    console.ok(f"dbt-{found.adapter} for dbt-core {_dbt_version(settings.root)}; the warehouse is {where}")
    for package in found.packages:
        if name := package.get("package") or package.get("git") or package.get("tarball"):
            name = re.sub("//[^/@]*@", "//", str(name))  # without a token
            console.advice(f"packages: {name} is downloaded when its image or environment is built")
    for key, file in found.missing.items():
        console.advice(f"env_var: {key} is not set ({file}); add it to {place / '.env'} or .env")
    for note in (*found.notes, _same_names(place, found.content), *_outside(place, found.content)):
        if note:
            console.advice(note)
    for key in noted:
        if environ.get(key):
            console.advice(f"{key} is also set in your shell, and that value overrides .env")
    would = " and ".join(f"{key} to {text or 'nothing'}" for key, text in noted.items())
    if found.shop and warehouse:
        console.advice("the shop always uses the stack's own PostgreSQL; --warehouse applies to the next project")
    console.note(f"Would set {would} in .env" if dry else "  next: invoke up run")


def _requirements(file: Path, seen: tuple[Path, ...] = ()) -> Iterator[str]:
    """The lines of a requirements file, and of the files that it includes, without comments and hashes: those hashes are for another lock.

    Files that it includes by URL are left to uv.
    """
    if file in seen or not file.is_file():
        return
    text = re.sub(r"\\\n", " ", _text(file))
    for line in re.sub(r"\s--hash[= ]\S+", "", text).splitlines():
        word = re.sub(r"(^|\s)#.*", "", line).strip()
        match = re.match(r"(-r|--requirement|-c|--constraint)[\s=]*(?!\w+://)(\S.*)", word)
        if match:
            other = Path(os.path.normpath(file.parent / match[2]))
            included = list(_requirements(other, (*seen, file)))
            if match[1] in ("-r", "--requirement"):
                yield from included
            else:  # the file is passed on by its path; the comment changes with its content
                content = hashlib.sha256("\n".join(included).encode())
                yield from (f"-c {other}", f"# {content.hexdigest()[:16]}")
        elif word:
            yield word


def _text(file: Path) -> str:
    """The text of a file that a person has written.

    Raises:
        BadConfiguration: it is not in UTF-8, such as a file that PowerShell 5 has written.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"{file} is not in UTF-8.", str(error), "Save it in UTF-8, then try again.") from None


def unfit_version(wanted: Any, version: str) -> str:
    """``require-dbt-version`` as text, if ``version`` does not meet it; otherwise an empty string."""
    specs = [part.strip() for text in (wanted if isinstance(wanted, list) else [wanted] if wanted else []) for part in str(text).split(",")]
    have = _numbers(version)
    for spec in specs:
        match = re.match(r"(>=|<=|!=|=|>|<)?\s*v?([0-9][\w.]*)$", spec)
        if not match:
            continue
        other = _numbers(match[2])
        fits = {">=": have >= other, "<=": have <= other, "!=": have != other, ">": have > other, "<": have < other}
        if not fits.get(match[1] or "=", have == other):
            return ", ".join(specs)
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return numbers + (0,) * (3 - len(numbers))


def _dbt_version(root: Path) -> str:
    locks = (path.read_text(encoding="utf-8") for path in sorted((root / "docker").glob("*/requirements*.txt")))
    return next(found for lock in locks if (found := DBT_VERSION.search(lock)))[1]


def _content(settings: Settings) -> dict[str, Any]:
    place = folder(settings)
    file = place / FILE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        near = sorted(path.parent for pattern in (f"*/{FILE}", f"*/*/{FILE}") for path in (place.glob(pattern) if place.is_dir() else ()))
        near = [path for path in near if not {*project_files.MADE, project_files.CACHE}.intersection(path.parts)][:3]
        raise BadConfiguration(
            f"There is no {FILE} in {place}.",
            f"There is one in {', '.join(map(str, near))}." if near else "DBT_PROJECT in .env names the folder of a dbt project.",
            f"invoke use {shlex.quote(str(near[0]))}"
            if near
            else "invoke use FOLDER   (invoke use shop goes back to the one that comes with this checkout)",
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # an impossible date, or not UTF-8
        raise BadConfiguration(f"{file} cannot be read.", str(error), f"Correct it, then: invoke use {shlex.quote(str(place))}") from None
    if not isinstance(content, dict) or not content.get("name"):
        raise BadConfiguration(f"{file} does not name a project.", "The key name is missing.", "Add a line such as: name: my_project")
    return content


def _profile_files(place: Path, settings: Settings) -> list[Path]:
    """The files in which a profile may be, in the order in which they are searched."""
    if place == settings.root / SHOP:
        return [place / "profiles.yml"]
    elsewhere = settings["DBT_PROFILES_DIR"]
    return [
        place / "profiles.yml",
        *([settings.root / os.path.expanduser(elsewhere) / "profiles.yml"] if elsewhere else []),
        Path(os.path.expanduser("~"), ".dbt", "profiles.yml"),
    ]


def _profile(place: Path, settings: Settings, name: str) -> tuple[Path, dict[str, Any]] | None:
    for file in _profile_files(place, settings):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (yaml.YAMLError, ValueError, OSError) as error:
            raise BadConfiguration(f"{file} cannot be read.", str(error), "Correct the file.") from None
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            return file, content[name]
    return None


def _why_shared(output: Mapping[str, Any], lookup: _Variables) -> str:
    """Why a project with this profile gets the stack's PostgreSQL."""
    host = str(output.get("host", ""))
    if "env_var" in host and not lookup.render(host):
        return f"the host of its PostgreSQL, {host}, is not set"
    return "its profile names a PostgreSQL on this machine"


def _is_local_postgres(output: Mapping[str, Any], lookup: _Variables) -> bool:
    host = lookup.render(str(output.get("host", "")))
    return str(output.get("type")) == "postgres" and (host in LOCAL or host.startswith("/"))  # a path is the folder of its socket


def _own(output: dict[str, Any], lookup: _Variables, variables: dict[str, str], files: dict[str, Path], notes: list[str]) -> dict[str, Any]:
    """The user's own connection, with secrets, files and an embedded database moved to where dbt finds them on either runtime."""
    if output.get("type") == "duckdb" and not _REMOTE.match(lookup.render(str(output.get("path", ":memory:")))):
        name = Path(lookup.render(str(output["path"]))).name
        output["path"] = f"{{{{ env_var('SWITCHYARD_WAREHOUSE_PATH') }}}}/{name}"
        notes.append(f"the DuckDB file {name} is kept by the stack, not in the project")

    def moved(value: Any, *keys: str) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner, *keys, str(key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner, *keys, str(number)) for number, inner in enumerate(value)]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and any(map(_SECRET_NUMBER.search, keys)):
            value = str(value)
        if not isinstance(value, str) or "{{" in value or not value:
            return value
        name = re.sub(r"\W", "_", "_".join(keys)).upper()
        if any(map(_SECRET.search, keys)) or _SECRET_VALUE.search(value):
            variables[PROFILE_SECRET + name] = value
            return f"{{{{ env_var('{PROFILE_SECRET}{name}') }}}}"
        path = Path(os.path.expanduser(value))
        if path.is_absolute() and os.path.isfile(path):  # Path.is_file fails for a name that is too long
            files[f"SWITCHYARD_FILE_{name}"] = path
            return f"{{{{ env_var('SWITCHYARD_FILE_{name}') }}}}"
        return value

    return {key: value if key == "type" else moved(value, str(key)) for key, value in output.items()}


class _Variables:
    """The values for ``env_var()``: from the shell, or else from the project's ``.env``, or else from the checkout's."""

    def __init__(self, place: Path, settings: Settings, environ: Mapping[str, str]) -> None:
        self.place = place
        self.released = bool(settings.values.get("RELEASE_FILE"))  # its profile has variables in place of the secrets
        own = dotenv_values(stream=io.StringIO(_text(place / ".env")), interpolate=False) if environ and (place / ".env").is_file() else {}
        ours = dotenv_values(settings.env_file, interpolate=False) if environ and settings.saved else {}
        ours = {key: value for key, value in ours.items() if key not in settings.values}
        self.values = {key: value for key, value in {**ours, **own, **environ}.items() if value is not None}

    def render(self, text: str) -> str:
        """``text`` with its calls of ``env_var()`` filled in, if they are simple."""
        return _ENV_VAR.sub(lambda match: self.values.get(match[2], match[4] or ""), text)

    def asked(self, output: Mapping[str, Any], ours: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
        """The variables that the project uses, except ``ours``: those that are set, and the unset ones with the file that uses each."""
        found = {key: self.values[key] for key in DBTS_OWN if key in self.values}
        missing: dict[str, str] = {}
        packages = (place for place in _locals(self.place) if not place.is_relative_to(self.place))
        texts = [text for place in (self.place, *packages) for text in _texts(place)]
        for name, text in [*texts, ("the profile", "\n".join(_leaves(output)))]:
            for match in _ASKED.finditer(text):
                key = match[2]
                if key in ours or key.startswith("SWITCHYARD_") or (key.startswith(PROFILE_SECRET) and not self.released):
                    continue
                if key in self.values:
                    found[key] = self.values[key]
                elif not match[3]:
                    missing.setdefault(key, name)
        return found, missing


def _leaves(value: Any) -> Iterator[str]:
    """Every string in a YAML value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every file in which a project may use a variable."""
    for path in project_files.walk(place):
        if path.suffix in _READ and path.name != "profiles.yml" and path.is_file():
            yield path.relative_to(place).as_posix(), path.read_text(encoding="utf-8", errors="replace")


def _packages(place: Path) -> Iterator[dict[str, Any]]:
    for name in PACKAGE_FILES[:2]:
        try:
            content = yaml.safe_load((place / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, yaml.YAMLError, ValueError):
            continue
        packages = content.get("packages") if isinstance(content, dict) else None
        for package in packages if isinstance(packages, list) else ():
            if isinstance(package, dict):
                yield package


def _invalid_paths(content: Mapping[str, Any]) -> list[str]:
    """The keys with folders whose value dbt refuses, because it is no list of texts; an expression is left to dbt."""

    def valid(value: Any) -> bool:
        if isinstance(value, list):
            return all(isinstance(path, str) for path in value)
        return value is None or "{{" in str(value)

    return [str(key) for key, value in content.items() if str(key).endswith("-paths") and not valid(value)]


def _folders(place: Path, content: Mapping[str, Any], key: str, default: str) -> list[Path]:
    """The folders under ``key``, or else the default one."""
    paths = content.get(key)
    return [place / path for path in (paths if isinstance(paths, list) else [default])]


def _same_names(place: Path, content: Mapping[str, Any]) -> str:
    """The message of `use` about files whose names are the same in Dagster; empty where there are none."""
    kinds = (("model-paths", "models"), ("seed-paths", "seeds"), ("snapshot-paths", "snapshots"))
    folders = [folder for key, default in kinds for folder in _folders(place, content, key, default)]
    stems = [path.stem for folder in folders for path in folder.rglob("*") if path.suffix in (".sql", ".py", ".csv")]
    names = {stem: re.sub(r"\W", "_", stem, flags=re.ASCII) for stem in stems}
    counts = Counter(names[stem] for stem in stems)
    same = sorted(stem for stem, name in names.items() if counts[name] > 1)
    if not same:
        return ""
    return (
        f"Dagster will show no assets of this project, and run each job as one op, because of {', '.join(same[:5])}: "
        "it accepts only letters a to z, digits and _, so every other character becomes _. Other orchestrators show every node."
    )


def _wrong_packages(place: Path) -> list[str]:
    """Local packages that do not exist at their path in the packages file."""
    return [
        f"A packages file names {package['local']}, and there is no {FILE} in {_local(place, package)}."
        for package in _packages(place)
        if "local" in package and "{{" not in str(package["local"]) and not (_local(place, package) / FILE).is_file()
    ]


def _local(place: Path, package: Mapping[str, Any]) -> Path:
    """The folder of a local package, from its relative path without following links, because a copy has no links."""
    return Path(os.path.normpath(place / str(package.get("local", "{{"))))


def _outside(place: Path, content: Mapping[str, Any]) -> Iterator[str]:
    """The messages of `use` about parts of the project that are not in its folder."""
    for key, paths in content.items():
        if str(key).endswith("-paths") and isinstance(paths, list):
            for path in paths:
                if not Path(os.path.normpath(place / str(path))).is_relative_to(place):
                    yield f"{key}: {path} is not in the project's folder, so no run has it; make it a local package (packages.yml)"
    for path in project_files.walk(place):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place)):
            link = path.relative_to(place).as_posix()
            yield f"{link} links outside the project's folder: containers do not have its target, and edits to it are not detected"


def _locals(place: Path) -> list[Path]:
    """The folders of its local packages, and of their local packages; dbt resolves all of them relative to the project's folder."""
    found: list[Path] = []
    waiting = [place]
    while waiting:
        for package in _packages(waiting.pop()):
            path = _local(place, package)
            if (path / FILE).is_file() and path not in found:
                found.append(path)
                waiting.append(path)
    return found


def _root_of(place: Path) -> Path:
    """The nearest folder that contains the project and all of its local packages."""
    return Path(os.path.commonpath([place, *_locals(place)]))


def _dependencies(place: Path) -> Iterator[tuple[Path, Path]]:
    """The files that `dbt deps` needs, each with its path in a copy that keeps their relative paths."""
    root = _root_of(place)
    own = [place / name for name in (FILE, *PACKAGE_FILES)]
    inner = (path for package in _locals(place) for path in project_files.files(package))
    for path in (*own, *(path for path in inner if path not in (*own, place / "profiles.yml"))):
        if path.is_file():
            yield path, path.relative_to(root)


def _parts(source: Path, without: Collection[Path], above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The files and folders of the project, without what dbt or a person has put there that is not part of it, and without ``without``.

    Args:
        source: the project's folder, or one in it.
        without: files to leave out.
        above: the parent folders of ``source`` within the project, to which a link may lead back.
    """
    real = source.resolve()
    if real in above:
        return
    for path in sorted(source.iterdir()):
        if project_files.is_left_out(path) or path.suffix == ".duckdb" or path in without:
            continue
        if path.is_dir():
            yield path
            yield from _parts(path, without, above | {real})
        elif path.is_file():
            yield path


def _copy(source: Path, target: Path, without: Collection[Path]) -> None:
    """Copy the files and folders of `_parts`."""
    target.mkdir(parents=True)
    for path in _parts(source, without):
        place = target / path.relative_to(source)
        place.mkdir() if path.is_dir() else shutil.copy(path, place)
