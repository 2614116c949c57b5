"""Shared by all tests."""

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

import stack  # noqa: F401  (puts docker/common on the path)

from .stacks import ROOT

# Has a stack of its own, and so can run in whichever worker is free first.
APART = "tests/native/test_own_project.py"


class RuntimesApart(LoadScopeScheduling):
    """Hands the tests out to pytest-xdist's workers by folder: those of one runtime share a stack and follow one another."""

    def _split_scope(self, nodeid: str) -> str:
        return APART if nodeid.startswith(APART) else nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Have the two runtimes' tests run beside each other."""
    return RuntimesApart(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens, and not only at the end: a run of an hour may be cut before."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext}", flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms out, unless CHAOS asks for them."""
    if not os.environ.get("CHAOS"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT
