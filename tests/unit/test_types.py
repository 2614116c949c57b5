"""The types are right on this platform; CI checks three."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ..stacks import ROOT

# For the code in the images, whose packages are not installed here, and which reads the untyped answers of their APIs.
LENIENT = ["--config-file=", "--strict", "--python-version=3.12", "--ignore-missing-imports"]
LENIENT += ["--allow-subclassing-any", "--allow-untyped-decorators", "--no-warn-return-any"]
FOLDERS = sorted({path.parent.name for path in (ROOT / "docker").glob("*/run_job.py")})


def test_the_types_are_right() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FOLDERS)
def test_the_types_in_an_image_are_right(name) -> None:
    path = os.pathsep.join((".", f"docker/{name}"))
    cache = f"--cache-dir=.mypy_cache/{name}"  # each folder has files of the same names
    argv = [sys.executable, "-m", "mypy", *LENIENT, cache, f"docker/{name}"]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
