"""Shared by all tests."""

from pathlib import Path

import pytest

import stack  # noqa: F401  (puts docker/common on the path)

from .stacks import ROOT


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of one runtime share a stack and follow one another; those of the other run beside them (pytest-xdist)."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder != "unit":
            item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT
