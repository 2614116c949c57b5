"""How what runs without Docker is found, and what becomes of it, without a PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchyard.runner import Runner
from switchyard.runtimes.native.postgres import Postgres

from .test_plan import SETTINGS


@pytest.fixture
def postgres(tmp_path) -> Postgres:
    """A server's data folder, without a server."""
    made = Postgres(SETTINGS, Runner({}), {})
    made.home, made.programs, made.data = tmp_path, tmp_path / "nowhere", tmp_path / "cluster"
    made.data.mkdir()
    return made


@pytest.mark.parametrize("pid", [2**22 + 1, os.getpid()], ids=["nobody", "another program"])
@pytest.mark.parametrize("sign", [1, -1], ids=["of a server", "of the single-user mode"])
def test_a_note_that_a_power_cut_has_left_is_of_no_server(postgres, pid, sign) -> None:
    Path(postgres.data, "postmaster.pid").write_text(f"{sign * pid}\n{postgres.data}\n")
    assert postgres.server() is None
    assert postgres.crashed()
