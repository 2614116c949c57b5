"""Everything that the warm dbt uses of dbt's internals. `check` compares it with the installed dbt before it is used.

The rest of Switchyard uses dbt as an executable only. This module imports dbt inside its functions, in the server's process.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from rundbt import project_files

KNOWN = ((1, 11), (1, 12))  # the first and the last minor version of dbt-core that were tested


# Variables that are read when Python, dbt or a library starts, or that compiled code depends on: a client has to have the server's
# values. PYTHONLEGACYWINDOWSSTDIO is excepted: Celery sets it on every platform, and it has an effect only on Windows, where no server
# runs.
FIXED = re.compile(
    r"PYTHON(?!UNBUFFERED|DONTWRITEBYTECODE|LEGACYWINDOWSSTDIO)[A-Z0-9]+|LANG|LANGUAGE|(LC|LD|MALLOC|GLIBC|OPENSSL)_.*"
    r"|DBT_(ENGINE_)?(PACKAGE_HUB_URL|MACRO_DEBUGGING|RECORDER_.*)"
)


class UnknownDbt(Exception):
    """The installed dbt cannot be used as a warm dbt; the text has the reason."""


def is_known(version: str) -> bool:
    """Whether a version of dbt-core is one of those that were tested."""
    return KNOWN[0] <= tuple(int(part) for part in version.split(".")[:2]) <= KNOWN[1]


def check() -> None:
    """Import dbt, and check that its internals are what this module expects.

    Raises:
        UnknownDbt: they are not.
    """
    try:
        version = metadata.version("dbt-core")
    except metadata.PackageNotFoundError:
        raise UnknownDbt("dbt-core is not installed in its environment") from None
    if not is_known(version):
        raise UnknownDbt(f"dbt-core {version} is not one of the tested versions, {' to '.join(f'{a}.{b}' for a, b in KNOWN)}")
    try:
        import dbt.task.build
        import dbt.task.freshness
        import dbt.version
        from dbt.cli.main import cli, dbtRunner
        from dbt.contracts.graph.manifest import Manifest
        from dbt.parser.manifest import ManifestLoader, extended_mashumuro_decoder
        from dbt_common.clients.jinja import CallableMacroGenerator, template_cache

        (script,) = metadata.entry_points(group="console_scripts", name="dbt")
        options = {name for parameter in cli.commands["parse"].params for name in parameter.opts}
        expected = {
            "the program dbt": script.value == "dbt.cli.main:cli",
            "dbtRunner": "args" in inspect.signature(dbtRunner.invoke).parameters,
            "Manifest.from_msgpack": list(inspect.signature(Manifest.from_msgpack).parameters)[1:2] == ["decoder"],
            "read_manifest_for_partial_parse": "from_msgpack" in ManifestLoader.read_manifest_for_partial_parse.__code__.co_names,
            "extended_mashumuro_decoder": callable(extended_mashumuro_decoder),
            "template_cache": "template_cache" in CallableMacroGenerator.get_template.__code__.co_names,
            "get_node_template": list(inspect.signature(template_cache.get_node_template).parameters) == ["node"],
            "get_latest_version": "get_latest_version" in dbt.version.get_version_information.__code__.co_names,
            "options of parse": options >= {"--partial-parse-file-path", "--target-path", "--log-path", "--log-level-file"},
        }  # fmt: skip
    except Exception as error:
        raise UnknownDbt(f"dbt-core {version}: {type(error).__name__}: {error}") from error
    if wrong := [name for name, right in expected.items() if not right]:
        raise UnknownDbt(f"dbt-core {version} differs from what is expected in: {', '.join(wrong)}")


def run(args: list[str]) -> None:
    """Run dbt as its executable does; it ends with SystemExit."""
    sys.argv = ["dbt", *args]
    from dbt.cli.main import cli

    cli(prog_name="dbt")


def ask_no_network() -> None:
    """Make ``dbt --version`` skip its request to the package index, and print what it prints when the index does not answer."""
    import dbt.version

    def get_latest_version(version_url: str = "") -> None:
        return None

    dbt.version.get_latest_version = get_latest_version


class Parse:
    """The parse in the folder ``target``, with the manifest that was read from it in memory.

    Each dbt still reads the file and compares the project's files, variables and profile with it. Only if the file's bytes
    have not changed does it get the manifest from memory.
    """

    def __init__(self, target: Path) -> None:
        from dbt.contracts.graph.manifest import Manifest

        self._file = target / project_files.PARTIAL
        self._bytes = b""
        self._manifest: Any = None
        self._from_msgpack = Manifest.from_msgpack
        Manifest.from_msgpack = self._remembered

    def _remembered(self, data: bytes, *args: Any, **kwargs: Any) -> Any:
        """Replaces ``Manifest.from_msgpack``. dbt changes the manifest that it gets, so each one is handed out only once."""
        manifest, self._manifest = self._manifest, None
        if manifest is not None and data == self._bytes:
            return manifest
        return self._from_msgpack(data, *args, **kwargs)

    def refresh(self) -> None:
        """Read the parse, unless it is already in memory."""
        from dbt.parser.manifest import extended_mashumuro_decoder
        from dbt_common.clients.jinja import template_cache

        with suppress(Exception):  # there is none, or another dbt's; the client's dbt reports that
            parse = self._file.read_bytes()
            if parse != self._bytes:
                self._bytes, self._manifest = b"", None
                manifest = self._from_msgpack(parse, decoder=extended_mashumuro_decoder)
                importlib.import_module(f"dbt.adapters.{manifest.metadata.adapter_type}")
                self._bytes, self._manifest = parse, manifest
                template_cache.clear()
                for macro in manifest.macros.values():  # otherwise each dbt compiles the ones that it uses
                    template_cache.get_node_template(macro)
                gc.unfreeze()
                gc.collect()
                gc.freeze()  # otherwise the garbage collector of a forked process would touch, and so copy, all of it


def warm_up(target: Path) -> None:
    """Let dbt parse once: much of its code is created when it is first needed. Changes to its modules' state are undone.

    dbt starts no threads only if nothing has changed since the last parse; otherwise this does nothing.
    """
    from dbt.cli.main import dbtRunner

    stamp = target / "fingerprint"
    if not stamp.exists() or stamp.read_text() != project_files.fingerprint():
        return
    with unchanged(), tempfile.TemporaryDirectory(dir=target, prefix="warm-") as scratch:
        paths = ["--project-dir", project_files.project_dir(), "--target-path", scratch, "--log-path", scratch]
        silent = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-send-anonymous-usage-stats"]
        dbtRunner().invoke([*silent, "parse", "--partial-parse-file-path", str(target / project_files.PARTIAL), *map(str, paths)])


@contextmanager
def unchanged() -> Iterator[None]:
    """Restore the variables of dbt's modules, and the containers in them, at the end.

    Among them are the flags, adapters, event manager, plugins, tracked user, custom environment variables for the log, counted
    deprecations, written artifacts, and caches.
    """
    before = [(vars(module), _copy(vars(module))) for name, module in list(sys.modules.items()) if _is_dbt(name)]
    try:
        yield
    finally:
        for variables, saved in before:
            _restore(variables, saved)


def _is_dbt(name: str) -> bool:
    return name.partition(".")[0] in ("dbt", "dbt_common")


def _copy(variables: dict[str, Any], depth: int = 1) -> dict[str, tuple[Any, Any]]:
    """By name: the value, and a copy of its content."""
    saved = {}
    for name, value in variables.items():
        content: Any
        if isinstance(value, dict):
            content = dict(value)
        elif isinstance(value, list | set):
            content = list(value)
        elif depth and _is_dbt(type(value).__module__) and hasattr(value, "__dict__"):
            content = _copy(vars(value), depth - 1)
        else:
            content = None
        if not name.startswith("__"):
            saved[name] = value, content
    return saved


def _restore(variables: dict[str, Any], saved: dict[str, tuple[Any, Any]]) -> None:
    for name, (value, content) in saved.items():
        if variables.get(name) is not value:
            variables[name] = value
        if isinstance(value, list):
            value[:] = content
        elif isinstance(value, dict | set):
            value.clear()
            value.update(content)
        elif content is not None:
            _restore(vars(value), content)
