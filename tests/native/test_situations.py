"""What users of such tools report, where the cheaper runtime can bring it about: its exit code, and what to do."""

import os
import subprocess
import sys

import pytest

from ..stacks import copy_checkout, unavailable
from .conftest import NativeStack


def test_data_of_another_postgres_is_told_before_a_start(stack) -> None:
    stack.invoke("down")
    note = stack.cluster / "PG_VERSION"
    version = note.read_text()
    note.write_text("15\n")
    try:
        said = stack.invoke("up", "--orch", "dagster", code=14).stderr
        assert "PostgreSQL 15" in said
        assert "invoke clean --volumes --no-backup" in said
    finally:
        note.write_text(version)
    assert stack.processes() == []


def test_the_doctor_finds_nothing_wrong_with_what_runs(stack) -> None:
    stack.on("dagster")
    said = stack.invoke("doctor").stdout
    assert f"DAGSTER_PORT: {stack.ports['DAGSTER_PORT']} is held by this stack" in said
    assert "Environments: the next `invoke up` makes" in said or "Environments: current" in said
    assert "Leftovers: none" in said


def test_the_doctor_tells_leftovers_of_a_crash(stack) -> None:
    stack.on("dagster")
    stack.root("dagster-daemon").kill()
    said = stack.invoke("doctor").stdout
    assert "Left over from a crash or a restart of the machine: dagster-daemon" in said
    stack.invoke("up", "--orch", "dagster")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_that_is_nearly_full_is_told_before_anything_is_made(tmp_path, root, bare_path) -> None:
    copy_checkout(root, tmp_path)
    (tmp_path / ".stack").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path / ".stack")], capture_output=True).returncode:
        unavailable("no file system can be mounted")
    try:
        said = NativeStack(tmp_path, PATH=bare_path).invoke("up", code=17).stderr
        assert "The disk is nearly full" in said
        assert not (tmp_path / ".stack" / "native").exists()
    finally:
        subprocess.run(["umount", str(tmp_path / ".stack")], check=True)
