"""Shared by all tests."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from .stacks import LONG, ROOT, Stack

# Without the user's own git settings: no signatures, no hooks (from git 2.31), and no repository that a hook's variables point to.
for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"):
    os.environ.pop(key, None)
for key, value in (("commit.gpgsign", "false"), ("core.hooksPath", os.devnull)):
    number = os.environ.get("GIT_CONFIG_COUNT") or "0"
    os.environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value, "GIT_CONFIG_COUNT": str(int(number) + 1)}

# The tests reach their own servers without a proxy that is set in the shell.
for key in ("NO_PROXY", "no_proxy"):
    os.environ[key] = ",".join(filter(None, (os.environ.get(key), "127.0.0.1", "localhost")))

os.umask(0o022)  # other accounts, which some tests run commands as, can read the files that a test writes

# In a script's background, or under nohup, these signals are ignored, and the tests' commands would inherit that; some tests send them.
for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

# Every property test tries the same examples each time, no matter which files are run and how slow the machine is.
# HYPOTHESIS_PROFILE=thorough tries many other examples; a failure then prints how to reproduce it.
settings.register_profile(
    "quick", max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# The order in which the tests start, by path: the longest groups first and the shortest files last, so that both workers end at about the
# same time. The files with Airflow come first in small/, so that usually only one worker's stack there has to install it.
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
# Here each file goes to the next free worker: it has its own stack, a stack that is up in less than a minute, or none.
APART = ("tests/native/test_own_project.py", "tests/small/", "tests/unit/")


def rank(nodeid: str) -> int:
    """The test's place in ORDER."""
    return ORDER.index(max(filter(nodeid.startswith, ORDER), key=len, default=ORDER[-1]))


class RuntimesApart(LoadScopeScheduling):
    """Distributes the tests to pytest-xdist's workers by folder, in ORDER: the tests of one runtime share a stack and run in sequence."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0] if nodeid.startswith(APART) else nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Run the two runtimes' tests in parallel."""
    config.option.loadscopereorder = False  # otherwise the groups with the most tests come first, which are the shortest
    return RuntimesApart(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the services' logs of a failure: the reason is often only there, and the stack is removed afterwards."""
    report = yield
    stack = item.funcargs.get("stack")
    if report.when == "call" and report.failed and isinstance(stack, Stack):
        report.sections.append(("The services' logs", stack.logs()))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens, not only at the end: a run of an hour may be cut off before that."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext}", flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms out, unless CHAOS is set, and sort the rest by ORDER."""
    if not LONG:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


def path_without_docker(folder: Path) -> str:
    """This process's PATH without docker: a folder that contains it is replaced by one with links to everything else in it."""
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
    """A folder that any account can read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="switchyard-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture(scope="session")
def bare_path(open_folder) -> str:
    """A PATH without docker."""
    path = path_without_docker(open_folder / "path")
    assert shutil.which("docker", path=path) is None
    return path
