"""A stack of an earlier commit, under this checkout's commands: its `.env`, its data or Docker volume, and its backup."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from ..docker.conftest import PROJECT, DockerStack, prepared
from ..stacks import MARTS, Stack, copy_checkout, unavailable
from .conftest import NativeStack

BEFORE = "2371f601d032c50fec224d0e44b4294787d30559"  # of 2026-11-28, when a new `.env` had every default
NAME = f"{PROJECT}-upgrade"  # of the compose project
KEPT = (".env", ".stack", "backups")  # what git does not track

pytestmark = pytest.mark.long


def ordered(stack: Stack) -> str:
    """Number and revenue of the orders."""
    return stack.ask("select count(*) || ' ' || sum(revenue) from marts.fct_orders")


def replace_tables(stack: Stack) -> None:
    """The shop has other tables now (CHANGELOG.md): a run fails, with the statement that drops the earlier ones."""
    (statement,) = re.findall(r'invoke sql "(.+?)"', stack.invoke("run", code=1).stderr)
    stack.invoke("sql", statement)
    stack.invoke("run")
    assert stack.hashes() == MARTS


@pytest.fixture(scope="module", params=["native", "docker"])
def upgraded(request, tmp_path_factory, root, bare_path) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack that the earlier commit started, ran and backed up, now with this checkout's files; and its orders and `.env` from before."""
    archive = subprocess.run(["git", "archive", BEFORE], cwd=root, capture_output=True)
    if archive.returncode:
        unavailable("this clone lacks the commit; git fetch --unshallow")
    folder = (tmp_path_factory.mktemp("upgrade") / "switchyard").resolve()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as file:
        file.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder / "backups").mkdir()
    if request.param == "native":
        stack: Stack = NativeStack(folder, PATH=bare_path)
    else:
        stack = DockerStack(folder, COMPOSE_PROJECT_NAME=prepared(NAME), RUNTIME="docker")
    try:
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("run")
        stack.invoke("backup", "--file", str(folder / "backups" / "before.dump"))
        held = {"orders": ordered(stack), "env": (folder / ".env").read_text(encoding="utf-8")}
        stack.invoke("down")
        for path in folder.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        copy_checkout(root, folder)
        yield stack, held
    finally:
        stack.remove()


def test_a_stack_of_an_earlier_version_is_taken_over(upgraded) -> None:
    stack, held = upgraded
    stack.invoke("up", "--orch", "dagster")
    assert ordered(stack) == held["orders"]
    now = (stack.folder / ".env").read_text(encoding="utf-8")
    assert now.startswith(held["env"])  # its secrets and values; new secrets come after them
    replace_tables(stack)
    stack.invoke("switch", "prefect")
    stack.invoke("run")
    assert stack.hashes() == MARTS


def test_a_backup_of_an_earlier_version_is_restored(upgraded) -> None:
    stack, held = upgraded
    stack.on("prefect")
    stack.invoke("restore", str(stack.folder / "backups" / "before.dump"), "--yes")
    assert ordered(stack) == held["orders"]
    replace_tables(stack)


def test_a_default_that_an_earlier_version_froze_is_reported(upgraded) -> None:
    stack, held = upgraded
    frozen = held["env"].replace("apache/airflow:3.3.2-python3.12", "apache/airflow:3.2.1-python3.12")
    assert frozen != held["env"]
    path = stack.folder / ".env"
    now = path.read_text(encoding="utf-8")
    path.write_text(frozen, encoding="utf-8")
    try:
        assert "AIRFLOW_IMAGE has the version 3.2.1-python3.12" in stack.invoke("doctor", AIRFLOW_IMAGE="").stdout
    finally:
        path.write_text(now, encoding="utf-8")
