"""Every signature keeps what it promises, on the platform at hand; CI runs on three."""

from __future__ import annotations

import subprocess
import sys

from ..stacks import ROOT


def test_the_types_are_right() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
