"""Shared by all tests."""

from pathlib import Path

import pytest

import stack  # noqa: F401  (puts docker/common on the path)

from .stacks import ROOT


@pytest.fixture(scope="session")
def marts() -> dict[str, dict[str, tuple[int, str]]]:
    """Rows and content hash of every mart, by the runtime that built them in this session."""
    return {}


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT
