"""A second checkout next to the first, set up by the README's first command; if the tests run as root, an ordinary user owns it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ..stacks import POISON, account_group, copy_checkout, mostly_long, unavailable, wait_until
from .conftest import NativeStack

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="the command is for a POSIX shell")]


def ordinary_account() -> str | None:
    """An account without privileges, if the tests run as root; otherwise None."""
    if os.geteuid():
        return None
    import pwd

    people = [entry.pw_name for entry in pwd.getpwall() if 1000 <= entry.pw_uid < 60000]
    return (people or ["nobody"])[0]


def usable_python(account: str | None) -> str:
    """A Python with venv that the account may run; it may have no access to root's own."""
    options = {"user": account, "group": account_group(account), "extra_groups": []} if account else {}
    for python in (shutil.which("python3") or "", "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, cwd="/", check=True, **options)
            return python
        except (OSError, subprocess.CalledProcessError):
            continue  # missing, not permitted, or without venv
    unavailable(f"the account {account} can use no Python with venv")


@pytest.fixture(scope="module")
def second(stack, root, open_folder, bare_path) -> Iterator[NativeStack]:
    """The second checkout, started by the README's first command while the first one is up, without a home folder, with odd variables."""
    account = ordinary_account()
    stack.on("dagster")
    home = open_folder / "home"
    (home / "programs").mkdir(parents=True)
    (home / "programs" / "python3").symlink_to(usable_python(account))
    copy_checkout(root, home / "switchyard")
    if account:
        subprocess.run(["chown", "-R", f"{account}:{account_group(account)}", str(home)], check=True)
    home.chmod(0o700)
    second = NativeStack(
        home / "switchyard", python=str(home / "switchyard/.venv/bin/python"), account=account,
        PATH=os.pathsep.join([str(home / "programs"), bare_path]), HOME="/nonexistent", **POISON,
    )  # fmt: skip
    first_command = re.search(r"<!-- first command -->\n```sh\n(.*?)```", (root / "README.md").read_text(), re.S)[1]
    try:
        out = second.run(["sh", "-c", first_command]).stdout
        assert "Using the native runtime" in out
        assert "daily succeeded on Dagster" in out
        yield second
    finally:
        second.invoke("clean", "--volumes", "--no-backup", "--yes", code=None)
    assert second.processes() == []


def test_two_checkouts_do_not_affect_each_other(stack, reference, second) -> None:
    services, others = stack.status()["services"], second.status()["services"]
    assert set(second.states().values()) == set(stack.states().values()) == {("running", "healthy")}
    assert not {entry["id"] for entry in services} & {entry["id"] for entry in others}
    assert second.hashes() == reference
    assert {second.root(entry["name"]).username() for entry in others} == {(second.folder / "tasks.py").owner()}
    assert (second.cluster / "PG_VERSION").exists()

    second.invoke("down")
    assert second.processes() == []
    assert [entry["id"] for entry in stack.status()["services"]] == [entry["id"] for entry in services]
    second.invoke("up", "--orch", "dagster")
    stack.invoke("down")
    assert set(second.states().values()) == {("running", "healthy")}


@pytest.mark.parametrize("new", mostly_long(["airflow", "prefect", "dagster"], "dagster"))
def test_every_orchestrator_runs_for_an_ordinary_user(reference, second, new) -> None:
    server = second.root("postgres")
    second.invoke("switch", new)
    assert server.is_running()
    assert "succeeded on" in second.invoke("run").stdout
    assert second.hashes() == reference
    assert second.git_status() == ""


@pytest.mark.long
def test_an_ordinary_user_recovers_from_kills(reference, second) -> None:
    second.on("dagster")
    second.root("dagster-code").kill()
    second.root("postgres").kill()
    wait_until(lambda: second.states()["postgres"][0] == "crashed")
    second.invoke("up", "--orch", "dagster")
    second.kill_in_the_middle("switch", "prefect", when=lambda: second.started("prefect-server"))
    second.invoke("up", "--orch", "prefect")
    assert second.hashes() == reference
    second.invoke("down")
    assert second.processes() == []
