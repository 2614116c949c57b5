"""Problems that users of such tools report and that this cheaper runtime can reproduce: their exit code, and what to do."""

import os
import re
import subprocess
import sys

import pytest

from ..stacks import copy_checkout, unavailable
from .conftest import NativeStack


def test_data_of_another_postgres_is_reported_before_a_start(stack) -> None:
    stack.invoke("down")
    note = stack.cluster / "PG_VERSION"
    version = note.read_text()
    note.write_text("15\n")
    try:
        output = stack.invoke("up", "--orch", "dagster", code=14).stderr
        assert "PostgreSQL 15" in output
        assert "invoke clean --volumes --no-backup" in output
    finally:
        note.write_text(version)
    assert stack.processes() == []


def test_the_doctor_finds_nothing_wrong_with_a_running_stack(stack) -> None:
    stack.on("dagster")
    output = stack.invoke("doctor").stdout
    assert f"DAGSTER_PORT: {stack.ports['DAGSTER_PORT']} is held by this stack" in output
    (environments,) = [line for line in output.splitlines() if "Environments: " in line]
    assert not {"dagster", "postgres"} & set(re.findall(r"\w+", environments)), environments  # those of the running services are current
    assert "Leftovers: none" in output


def test_the_doctor_reports_leftovers_of_a_crash(stack) -> None:
    stack.on("dagster")
    stack.root("dagster-daemon").kill()
    try:
        assert "Left over from a crash or a restart of the machine: dagster-daemon" in stack.invoke("doctor").stdout
    finally:
        stack.invoke("up", "--orch", "dagster")


@pytest.mark.long
def test_what_failed_runs_again_after_a_failed_unit_test(stack, reference) -> None:
    """In Airflow, which has no task for the unit test."""
    stack.on("airflow")
    path = "models/intermediate/int_order_items_priced.sql"
    with stack.edited(path, (stack.dbt / path).read_text() + "\nthis line is no SQL\n"):
        assert "unit_test int_order_items_priced" in stack.invoke("run", code=1).stderr
    again = stack.invoke("run", "--failed").stdout
    assert "success  model     int_order_items_priced " in again
    assert stack.hashes() == reference


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_that_is_nearly_full_is_reported_before_anything_is_written(tmp_path, root, bare_path) -> None:
    copy_checkout(root, tmp_path)
    (tmp_path / ".stack").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path / ".stack")], capture_output=True).returncode:
        unavailable("no file system can be mounted")
    try:
        output = NativeStack(tmp_path, PATH=bare_path).invoke("up", code=17).stderr
        assert "The disk is nearly full" in output
        assert not (tmp_path / ".stack" / "native").exists()
    finally:
        subprocess.run(["umount", str(tmp_path / ".stack")], check=True)


def refused_where(script: str, stack: NativeStack) -> str:
    """The error of `invoke up` when ``script`` has changed the system for this command only; ``$0`` in it is the checkout."""
    argv = ["unshare", "--mount", "sh", "-c", f'{script} && cd "$0" && exec "$@"', str(stack.folder)]
    return stack.run([*argv, stack.python, "-m", "invoke", "up"], code=5).stderr


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="another list of accounts needs a mount namespace of Linux")
def test_an_account_without_a_name_is_reported_before_anything_is_written(tmp_path, root, bare_path) -> None:
    (tmp_path / "passwd").write_text("other:x:5:5::/:/bin/sh\n")
    (tmp_path / "nsswitch.conf").write_text("passwd: files\n")  # systemd's library would still have a name for root
    copy_checkout(root, tmp_path / "switchyard")
    script = 'for file in passwd nsswitch.conf; do mount --bind "$0/../$file" /etc/$file || exit; done'
    output = refused_where(script, NativeStack(tmp_path / "switchyard", PATH=bare_path))
    assert "The account 0 has no name on this machine" in output
    assert not (tmp_path / "switchyard" / ".stack" / "native").exists()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a read-only folder needs a mount namespace of Linux")
def test_a_checkout_that_cannot_be_written_to_is_reported(tmp_path, root, bare_path) -> None:
    copy_checkout(root, tmp_path)
    output = refused_where('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', NativeStack(tmp_path, PATH=bare_path))
    assert "on a file system that cannot be written to" in output
