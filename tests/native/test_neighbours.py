"""A second checkout beside the first, of an ordinary user where the tests run as root: set up by the README's first command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ..stacks import account_group, copy_checkout
from .conftest import NativeStack


def ordinary_account() -> str | None:
    """An account without privileges for root to try; None where the tests have none themselves."""
    if os.geteuid():
        return None
    import pwd

    people = [entry.pw_name for entry in pwd.getpwall() if 1000 <= entry.pw_uid < 60000]
    return (people or ["nobody"])[0]


def usable_python(account: str | None) -> str:
    """A Python with venv that the account may run: root's own may be out of its sight."""
    options = {"user": account, "group": account_group(account), "extra_groups": []} if account else {}
    for python in (shutil.which("python3") or "", "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, cwd="/", check=True, **options)
            return python
        except (OSError, subprocess.CalledProcessError):
            continue  # none there, none that it may run, or one without venv
    pytest.skip(f"the account {account} can use no Python with venv")


@pytest.mark.skipif(sys.platform == "win32", reason="the command is for a POSIX shell")
def test_a_second_checkout_by_the_readmes_first_command(stack, reference, root, open_folder, bare_path) -> None:
    account = ordinary_account()
    python = usable_python(account)
    stack.on("dagster")
    before = stack.status()["services"]

    home = open_folder / "home"
    home.mkdir()
    copy_checkout(root, home / "switchyard")
    (home / "programs").mkdir()
    (home / "programs" / "python3").symlink_to(python)
    if account:
        subprocess.run(["chown", "-R", f"{account}:{account_group(account)}", str(home)], check=True)
    home.chmod(0o700)
    second = NativeStack(
        home / "switchyard", python=str(home / "switchyard/.venv/bin/python"), account=account,
        PATH=os.pathsep.join([str(home / "programs"), bare_path]), HOME=str(home),
    )  # fmt: skip
    first_command = re.search(r"<!-- first command -->\n```sh\n(.*?)```", (root / "README.md").read_text(), re.S)[1]
    try:
        out = second.run(["sh", "-c", first_command]).stdout
        assert "without Docker" in out
        assert "daily succeeded on Dagster" in out
        assert set(second.states().values()) == {("running", "healthy")}
        assert second.hashes() == reference
        assert stack.status()["services"] != second.status()["services"]
        if account:
            assert {process.username() for process in second.processes()} == {account}
        assert list(Path(second.place).glob("cluster/PG_VERSION"))
    finally:
        second.invoke("clean", "--volumes", "--yes", code=None)
    assert second.processes() == []
    assert [entry["id"] for entry in stack.status()["services"]] == [entry["id"] for entry in before]
    assert all(psutil.Process(int(entry["id"])).is_running() for entry in before)
