"""Switches without Docker: one server, one orchestrator at a time, and the same marts."""

import re
from pathlib import Path

import pytest

from ..stacks import PAIRS, SHORT, Arguments, mostly_long


@pytest.mark.parametrize("pair", mostly_long(PAIRS, *SHORT), ids="-".join)
def test_a_switch_keeps_postgres_and_builds_the_same_marts(stack, reference, pair) -> None:
    old, new = pair
    stack.on(old)
    server = stack.root("postgres")
    old_roots = [stack.root(name) for name in stack.states() if name != "postgres"]
    with Arguments() as arguments:
        stack.invoke("switch", new)
    assert server.is_running()
    assert not any(root.is_running() for root in old_roots)
    status = stack.status()
    assert (status["runtime"], status["orchestrator"]) == ("native", new)
    assert {(service["state"], service["health"]) for service in status["services"]} == {("running", "healthy")}
    with arguments:
        assert "succeeded on" in stack.invoke("run").stdout
    assert stack.hashes() == reference
    assert stack.git_status() == ""
    assert arguments.of("run_job.py")
    assert stack.leaked("\n".join(arguments.seen)) == []
    assert stack.exposed() == []


def test_up_of_a_second_orchestrator_is_refused_and_changes_nothing(stack) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    assert "invoke switch prefect" in stack.invoke("up", "--orch", "prefect", code=4).stderr
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


def test_a_second_up_installs_and_restarts_nothing(stack) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    out = stack.invoke("up", "--orch", "dagster").stdout
    assert "Building" not in out
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


def test_a_changed_setting_takes_effect_at_the_next_up(stack) -> None:
    stack.on("dagster")
    before = stack.root("dagster-code")
    env = stack.folder / ".env"
    text = env.read_text()
    env.write_text(text + "SCHEDULES_ENABLED=true\n")
    try:
        stack.invoke("up", "--orch", "dagster")
        after = stack.root("dagster-code")
        assert not before.is_running()
        assert after.environ()["SCHEDULES_ENABLED"] == "true"
    finally:
        env.write_text(text)


def test_a_switch_to_a_target_that_cannot_start_is_rolled_back(stack) -> None:
    stack.on("dagster")
    file = stack.folder / "docker" / "prefect" / "native.yaml"
    good = file.read_text()
    file.write_text(good.replace("command: [prefect, server", "command: [python, -c, 'import sys; sys.exit(\"it breaks here\")'"))
    try:
        done = stack.invoke("switch", "prefect", code=7)
    finally:
        file.write_text(good)
    assert "it breaks here" in done.stderr
    assert "it breaks here" in Path(re.search(r"more of them: (.*)\)", done.stderr)[1]).read_text()
    assert "next: Fix what its log shows, then: invoke switch prefect" in done.stderr
    assert "Dagster is active again" in done.stderr
    assert stack.status()["orchestrator"] == "dagster"


@pytest.mark.parametrize("args", [("switch", "prefct"), ("switch", "--dry"), ("--dry", "switch", "prefect")], ids=" ".join)
def test_a_command_that_does_not_switch_stops_nothing(stack, args) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    stack.invoke(*args, code=None)
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("switch", "prefect"),
        ("down",),
        ("backup",),
        ("clean", "--volumes", "--images"),
        ("bench",),
        ("compare",),
        ("generate", "--orders", "1000"),
    ],
    ids=" ".join,
)
def test_a_dry_run_does_nothing_and_reports_nothing_as_done(stack, words) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    output = stack.invoke("--dry", *words).stdout
    assert re.search("Would|^\\$ ", output, re.M)
    assert not re.search("Deleted|Written|Restored|Built|is healthy after|is stopped|[Bb]ackup written", output)
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


def test_baked_is_refused_without_images(stack) -> None:
    stack.on("dagster")
    assert "--baked needs an image" in stack.invoke("up", "--orch", "dagster", "--baked", code=2).stderr


def test_docker_is_refused_while_the_native_stack_is_up(stack) -> None:
    stack.on("dagster")
    assert "up on the runtime native" in stack.invoke("up", "--runtime", "docker", code=4).stderr
    assert stack.status()["orchestrator"] == "dagster"
