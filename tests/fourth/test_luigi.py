"""A fourth orchestrator, made of files alone, which no code of this project knows. docs/orchestrator.md describes the files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.ports import unused

from .. import runs
from ..docker.conftest import DockerStack, prepared
from ..small.conftest import PROJECT, SmallStack
from ..stacks import ROOT, Small, Stack, copy_checkout

FILES = Path(__file__).parent / "files"
SETTING = "LUIGI_PORT=8082\n"  # all that it needs besides its files
NAME = f"switchyard-fourth-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"  # of the compose project


class DockerLuigi(Small, DockerStack):
    """In containers."""


@pytest.fixture(scope="module", params=["native", pytest.param("docker", marks=pytest.mark.long)])
def stack(request, tmp_path_factory, bare_path) -> Iterator[Stack]:
    """A checkout with the files of the fourth orchestrator, which runs the small project."""
    place = tmp_path_factory.mktemp("fourth")
    copy_checkout(ROOT, place / "switchyard")
    shutil.copytree(FILES, place / "switchyard", dirs_exist_ok=True)
    with open(place / "switchyard" / ".env.example", "a", encoding="utf-8") as example:
        example.write(SETTING)
    shutil.copytree(PROJECT, place / "small")
    port = str(unused())
    if request.param == "native":
        made: Stack = SmallStack(place / "switchyard", PATH=bare_path, LUIGI_PORT=port)
    else:
        made = DockerLuigi(place / "switchyard", COMPOSE_PROJECT_NAME=prepared(NAME), RUNTIME="docker", LUIGI_PORT=port)
    made.dbt = place / "small"
    try:
        made.invoke("use", str(made.dbt))
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def reference(stack) -> dict[str, tuple[int, str]]:
    """Rows and content of the project's table, built by Luigi."""
    stack.invoke("up", "--orch", "luigi")
    assert "daily succeeded on Luigi" in stack.invoke("run").stdout
    found = stack.hashes()
    assert found == {"last": (3, "(1,20) (2,40) (3,60)")}
    return found


def test_it_is_shown_like_the_others(stack, reference) -> None:
    status = stack.status()
    assert (status["orchestrator"], status["url"]) == ("luigi", f"http://localhost:{stack.env['LUIGI_PORT']}/static/visualiser/index.html")
    assert {service["name"]: service["health"] for service in status["services"]} == dict.fromkeys(
        ("luigi", "luigi-worker", "postgres"), "healthy"
    )
    assert "none (the product has no sign-in)" in stack.invoke("status").stdout
    assert "Scheduler starting up" in stack.invoke("logs", "--service", "luigi").stdout
    assert "Luigi: " in stack.invoke("doctor").stdout


@pytest.mark.long
def test_a_failed_model_is_shown_and_runs_again(stack, reference) -> None:
    with stack.edited("models/broken.sql", "select no_such_column\n"):
        output = stack.invoke("run", code=1).stderr
    assert "model broken: " in output
    assert "daily succeeded on Luigi" in stack.invoke("run", "--failed").stdout


@pytest.mark.long
def test_a_run_is_shown_and_canceled(stack, reference) -> None:
    runs.canceled_run(stack, "luigi", reference)


def test_it_switches_both_ways(stack, reference) -> None:
    stack.on("luigi")
    stack.invoke("switch", "dagster")
    stack.invoke("run")
    assert (stack.hashes(), stack.orchestrators()) == (reference, {"dagster"})
    stack.invoke("switch", "luigi")
    assert stack.status()["orchestrator"] == "luigi"
    stack.invoke("run")
    assert stack.hashes() == reference


@pytest.mark.long
def test_a_switch_to_a_broken_luigi_is_rolled_back(stack, reference) -> None:
    stack.on("dagster")
    files = [stack.folder / "docker" / "luigi" / "native.yaml", stack.folder / "compose" / "docker-compose-luigi.yaml"]
    good = [file.read_text() for file in files]
    for file, text in zip(files, good):
        file.write_text(text.replace("command: [luigid", "command: [python, -c, 'import sys; sys.exit(\"it breaks here\")'"))
    try:
        done = stack.invoke("switch", "luigi", code=7)
    finally:
        for file, text in zip(files, good):
            file.write_text(text)
    assert "it breaks here" in done.stderr
    assert "Dagster is active again" in done.stderr
    stack.invoke("switch", "luigi")


@pytest.mark.long
def test_down_leaves_nothing_behind(stack, reference) -> None:
    stack.on("luigi")
    stack.invoke("down")
    assert stack.leftovers() == []
    assert stack.status()["services"] == []
