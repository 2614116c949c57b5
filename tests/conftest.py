"""Shared by all tests."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from .stacks import LONG, ROOT

# Nothing of the person's own git: no signature, no hook (git 2.31), and no repository that a hook's variables lead to.
for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"):
    os.environ.pop(key, None)
for key, value in (("commit.gpgsign", "false"), ("core.hooksPath", os.devnull)):
    number = os.environ.get("GIT_CONFIG_COUNT") or "0"
    os.environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value, "GIT_CONFIG_COUNT": str(int(number) + 1)}

# Past a proxy of the shell's, to the servers of the tests.
for key in ("NO_PROXY", "no_proxy"):
    os.environ[key] = ",".join(filter(None, (os.environ.get(key), "127.0.0.1", "localhost")))

os.umask(0o022)  # what a test writes can be read by the accounts that others run under, as what a command writes

# Started in a script's background, or by nohup, the tests would hand down that these are ignored; some are about them.
for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

# Of every test of properties, whichever files are run: the same examples each time, however slow the machine is.
# HYPOTHESIS_PROFILE=thorough tries others, and many; a failure then shows how to see it again.
settings.register_profile(
    "quick", max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# The tests by where they are, in the order in which they begin: the longest groups first and the shortest files last, so that both workers
# end together. The files with Airflow are the first of small/, so that mostly one worker's stack there has to have it.
ORDER = (
    "tests/docker/",
    "tests/native/",
    "tests/fourth/",
    "tests/small/test_airflow.py",
    "tests/small/test_runs.py",
    "tests/small/test_flow_runs.py",
    "tests/small/test_compare.py",
    "tests/native/test_own_project.py",
    "tests/small/",
    "tests/unit/test_types.py",
    "tests/unit/test_tasks.py",
    "tests/unit/",
)
# Where each file goes to whichever worker is free: it has a stack of its own, one that is up in less than a minute, or none.
APART = ("tests/native/test_own_project.py", "tests/small/", "tests/unit/")


def rank(nodeid: str) -> int:
    """The test's place in ORDER."""
    return ORDER.index(max(filter(nodeid.startswith, ORDER), key=len, default=ORDER[-1]))


class RuntimesApart(LoadScopeScheduling):
    """Hands the tests out to pytest-xdist's workers by folder, in ORDER: those of one runtime share a stack and follow one another."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0] if nodeid.startswith(APART) else nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Have the two runtimes' tests run beside each other."""
    config.option.loadscopereorder = False  # else those with most tests come first, which are the shortest
    return RuntimesApart(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens, and not only at the end: a run of an hour may be cut before."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext}", flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms out, unless CHAOS asks for them; the rest in ORDER."""
    if not LONG:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


def path_without_docker(folder: Path) -> str:
    """This process's PATH, in which nobody finds docker: a folder that has it is stood in for by links to all else in it."""
    folders = []
    for number, name in enumerate(os.environ["PATH"].split(os.pathsep)):
        if shutil.which("docker", path=name):
            links = folder / f"bin{number}"
            links.mkdir(parents=True)
            for program in Path(name).iterdir():
                if not program.name.startswith("docker"):
                    (links / program.name).symlink_to(program)
            links.chmod(0o755)
            name = str(links)
        folders.append(name)
    return os.pathsep.join(folders)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that any account can look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="switchyard-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture(scope="session")
def bare_path(open_folder) -> str:
    """A PATH without docker."""
    path = path_without_docker(open_folder / "path")
    assert shutil.which("docker", path=path) is None
    return path
