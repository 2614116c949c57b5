"""How processes are found and stopped without Docker; no test here needs a PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from switchyard.runner import Runner
from switchyard.runtimes.native import postgres as native
from switchyard.runtimes.native.postgres import Postgres
from switchyard.runtimes.native.processes import Processes

from .test_plan import SETTINGS


@pytest.fixture
def postgres(tmp_path) -> Postgres:
    """A server's data folder, without a server."""
    made = Postgres(replace(SETTINGS, values={**SETTINGS.values, "STACK_PG_BIN": ""}), Runner({}), {})
    made.home, made.programs, made.data = tmp_path, tmp_path / "nowhere", tmp_path / "cluster"
    made.data.mkdir()
    return made


@pytest.mark.parametrize("pid", [2**22 + 1, os.getpid()], ids=["nobody", "another program"])
@pytest.mark.parametrize("sign", [1, -1], ids=["of a server", "of the single-user mode"])
def test_a_pid_file_left_by_a_power_cut_belongs_to_no_server(postgres, pid, sign) -> None:
    Path(postgres.data, "postmaster.pid").write_text(f"{sign * pid}\n{postgres.data}\n")
    assert postgres.server() is None
    assert postgres.crashed()


@pytest.mark.skipif(sys.platform == "win32", reason="the program of a running process cannot be deleted there")
def test_a_server_whose_programs_were_deleted_can_be_stopped(postgres, tmp_path) -> None:
    program = tmp_path / "postgres"  # runs instead of a server, and has its name
    program.symlink_to(Path(sys.executable).resolve())
    argv = [program, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with subprocess.Popen(argv, cwd=postgres.data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout.readline() == b"up\n"
            Path(postgres.data, "postmaster.pid").write_text(f"{server.pid}\n")
            assert postgres.server()
            postgres.stop()
            assert postgres.server() is None
        finally:
            server.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no root")
def test_root_uses_no_data_of_another_checkout(tmp_path, monkeypatch) -> None:
    """Neither of a deleted one at the same path, nor of one from which this one was copied."""
    monkeypatch.setattr(native, "_account", lambda: "nobody")
    monkeypatch.setattr(native, "_PLACES", tmp_path / "places")

    def made(root: Path) -> Postgres:
        return Postgres(replace(SETTINGS, root=root), Runner({}), {})

    def started(root: Path) -> Path:
        made(root).claim()
        return made(root).place

    first = tmp_path / "first"
    place = started(first)
    assert started(first) == place
    shutil.copytree(first, tmp_path / "copy")
    assert started(tmp_path / "copy") != place
    shutil.rmtree(first)
    again = started(first)
    assert again != place
    shutil.rmtree(place)
    assert started(first) == again


@pytest.mark.skipif(sys.platform == "win32", reason="there is no root")
def test_root_keeps_the_data_of_a_version_that_wrote_no_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(native, "_account", lambda: "nobody")
    monkeypatch.setattr(native, "_PLACES", tmp_path)
    settings = replace(SETTINGS, root=tmp_path)
    made = Postgres(settings, Runner({}), {})
    made.data.mkdir(parents=True)
    made.log.parent.mkdir(parents=True)
    made.log.touch()
    assert Postgres(settings, Runner({}), {}).data == made.data


def test_a_started_service_is_not_being_stopped_after_a_killed_stop(tmp_path) -> None:
    processes = Processes(tmp_path, Runner({}))
    (tmp_path / "shop-api.stopping").touch()
    processes.start(
        "shop-api", "shop", [sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ),
        cwd=tmp_path, log=tmp_path / "log", ports={}, fingerprint="",
    )  # fmt: skip
    try:
        (record,) = processes.records()
        assert processes.root(record)
        assert not processes.being_stopped(record)
    finally:
        processes.stop(processes.records())
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
