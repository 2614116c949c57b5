"""A stack without Docker that runs a small project, for tests about runs, not about their results: each run takes a few seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from ..native.conftest import NativeStack, removed
from ..stacks import ROOT, Small, copy_checkout

PROJECT = ROOT / "tests" / "projects" / "small"
# Characters that users have in their paths, and no product's tests have. In the checkout's path, %, $ and PATH's separator are refused.
ODD = "it's small ü #1 &, x" if os.name == "nt" else 'it\'s "small" ü #1 &, ;x `y` \\z'


class SmallStack(Small, NativeStack):
    """A checkout that runs a user's own project."""


@pytest.fixture(scope="package")
def stack(tmp_path_factory, bare_path) -> Iterator[SmallStack]:
    """The stack, with Dagster up and the project run once; everything of it is removed at the end."""
    folder = (tmp_path_factory.mktemp("small") / ODD).resolve()
    copy_checkout(ROOT, folder)
    stack = SmallStack(folder, PATH=bare_path)
    stack.dbt = tmp_path_factory.mktemp("projects") / f"{ODD} 100%h $HOME"
    shutil.copytree(PROJECT, stack.dbt)
    with removed(stack):
        stack.invoke("use", str(stack.dbt))
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("run")
        yield stack


@pytest.fixture(scope="package")
def reference(stack) -> dict[str, tuple[int, str]]:
    """Rows and content of the project's table."""
    found = stack.hashes()
    assert found == {"last": (3, "(1,20) (2,40) (3,60)")}
    return found
