"""Shared by all tests."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

import stack  # noqa: F401  (puts docker/common on the path)

from .stacks import ROOT


class RuntimesApart(LoadScopeScheduling):
    """Hands the tests out to pytest-xdist's workers by folder: those of one runtime share a stack and follow one another."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Have the two runtimes' tests run beside each other."""
    return RuntimesApart(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT
