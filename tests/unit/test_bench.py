"""The parts of the benchmark's figures that are calculated, not measured."""

import os
import shutil
import subprocess

import pytest

from bench import harness, images, memory, rig, run
from bench.harness import Figure, interleaved, ratio, row
from switchyard import settings
from switchyard.errors import BadUsage, StackError


def test_measurements_take_turns() -> None:
    order = []

    def action(name: str, seconds: float):
        return lambda: order.append(name) or seconds

    assert interleaved(2, {"a": action("a", 3.0), "b": action("b", 2.0)}) == {"a": (3.0, 3.0), "b": (2.0, 2.0)}
    assert order == ["a", "b", "a", "b"]


def test_a_ratio_compares_neighbours_so_that_a_slow_moment_does_not_count() -> None:
    figure = ratio("x", [2.0, 20.0, 2.0], [1.0, 10.0, 1.0], target=2.0)
    assert (figure.values, figure.median, figure.met) == ((2.0, 2.0, 2.0), 2.0, True)


@pytest.mark.parametrize(
    ("figure", "cells"),
    [
        pytest.param(Figure("a", (1.2, 1.0, 1.6), 1.25), ("a", "1.20", "1.00 to 1.60", "met, at most 1.25"), id="met"),
        pytest.param(Figure("a", (1.3, 1.0, 1.6), 1.25), ("a", "1.30", "1.00 to 1.60", "MISSED, at most 1.25"), id="missed"),
        pytest.param(Figure("a", (1.5, 1.0)), ("a", "1.25", "1.00 to 1.50", ""), id="no target, and an even number of rounds"),
        pytest.param(Figure("a", (1200.4,), unit="MiB"), ("a", "1,200 MiB", "1,200 MiB to 1,200 MiB", ""), id="a unit"),
    ],
)
def test_a_row_shows_median_spread_and_target(figure, cells) -> None:
    assert row(figure) == cells


def test_the_json_has_the_values_behind_a_ratio() -> None:
    found = harness.as_json(ratio("x", [3.0], [2.0], target=1.0))
    assert (found["median"], found["met"], found["seconds"]) == (1.5, False, {"above": [3.0], "below": [2.0]})


def test_phases_add_up_to_the_run_even_if_clocks_disagree() -> None:
    timeline = run.Timeline(100.0, (101.0, 100.9, 103.0, 104.0, 108.0, 110.0))  # handed over before it was created
    assert timeline.phases == dict(zip(run.PHASES, (1.0, 0.0, 2.0, 1.0, 4.0, 2.0)))
    assert sum(timeline.phases.values()) == timeline.seconds


def test_only_connections_of_dbt_count() -> None:
    line = "postgres-1  | bench 1700000000.250 [unknown] LOG:  connection authorized: user={} database=airflow application_name={}"
    left = "postgres  | bench 1700000009.500 {} LOG:  disconnection: session time: 0:00:01 user=dbt database=airflow host=::1 port=1"
    assert run.CONNECTED.search(line.format("dbt", "dbt"))[1] == "1700000000.250"
    assert run.CONNECTED.search(line.format("dagster", "dbt")) is None
    assert run.CONNECTED.search(line.format("dbt", "psql")) is None  # of `invoke run`, which looks for locks
    assert run.DISCONNECTED.search(left.format("dbt"))[1] == "1700000009.500"
    assert run.DISCONNECTED.search(left.format("psql")) is None


def test_the_environment_of_an_image_is_its_own_packages() -> None:
    base = {"/usr/lib/site-packages/a.py": ("1", 10), "/usr/lib/site-packages/b.py": ("1", 10)}
    files = base | {"/usr/lib/site-packages/b.py": ("2", 12), "/opt/venv/site-packages/c.py": ("2", 5), "/opt/code.py": ("2", 7)}
    assert images.environment_bytes(files, base) == 17


@pytest.mark.parametrize(("text", "seconds"), [("usage_usec 2500000\nuser_usec 1\n", 2.5), ("2500000000\n", 2.5)], ids=["v2", "v1"])
def test_both_versions_of_control_groups_are_read(text, seconds) -> None:
    assert memory.cpu_seconds(text) == seconds


def test_a_temporary_stack_has_no_workers_and_sends_no_alert(root, tmp_path, monkeypatch) -> None:
    shutil.copy(root / ".env.example", tmp_path)
    for key, value in (("ALERT_WEBHOOK", "https://hooks.example.com/x"), ("WORKERS", "2"), ("NETWORK", "overlay")):
        monkeypatch.setenv(key, value)
    found = settings.load(tmp_path, rig.Rig(root, "docker").env, write=False)[0]
    assert (found["ALERT_WEBHOOK"], found["WORKERS"], found["NETWORK"]) == ("", "", "bridge")


@pytest.mark.skipif(os.name == "nt", reason="a script in place of psql")
def test_a_measurements_psql_gets_no_setting_of_the_shell(root, tmp_path, monkeypatch) -> None:
    shutil.copy(root / ".env.example", tmp_path)
    (tmp_path / "compose").symlink_to(root / "compose")
    program = tmp_path / "psql"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    for key, value in (("PGSSLMODE", "require"), ("PGHOSTADDR", "192.0.2.1"), ("STACK_PG_BIN", str(tmp_path))):
        monkeypatch.setenv(key, value)
    found = rig.Rig(tmp_path, "native").superuser("select 1")
    assert "PGPASSWORD=" in found
    assert "PGSSLMODE" not in found
    assert "PGHOSTADDR" not in found


def test_the_copy_of_a_checkout_has_what_git_tracks_or_would_add(tmp_path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    for folder in (root, root / "another project"):
        folder.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for name in ("new", "ignored", "another project/model.sql"):
        (root / name).write_text("")
    (root / ".gitignore").write_text("ignored")
    (root / "link").symlink_to("another project")
    copy.mkdir()
    rig.copy_checkout(root, copy)
    assert sorted(path.name for path in copy.rglob("*")) == [".gitignore", "link", "new"]
    assert (copy / "link").is_symlink()


def test_a_folder_that_is_not_a_clone_is_refused_with_gits_message(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    with pytest.raises(BadUsage) as refused:
        rig.copy_checkout(tmp_path, tmp_path / "copy")
    assert "not a git repository" in refused.value.why


@pytest.mark.parametrize(
    "text",
    ["3145728\nanon 1\ninactive_file 1048576\n", "3145728\ninactive_file 5\ntotal_inactive_file 1048576\n"],
    ids=["v2", "v1"],
)
def test_memory_excludes_what_the_system_can_reclaim(text) -> None:
    assert memory.mebibytes(text) == 2.0


def test_the_peak_is_that_of_the_sum() -> None:
    looks = [
        memory.Look(0.0, 0.1, {"a": memory.Usage(9.0, 0.0), "b": memory.Usage(1.0, 0.0)}),
        memory.Look(0.4, 0.5, {"a": memory.Usage(8.0, 0.5), "b": memory.Usage(3.0, 0.25)}),
        memory.Look(1.3, 1.4, {"a": memory.Usage(8.0, 1.25), "b": memory.Usage(1.0, 0.5), "new": memory.Usage(1.0, 9.0)}),
    ]
    assert memory.peak(looks) == memory.Peak({"a": 8.0, "b": 3.0}, {"a": 100.0, "b": 50.0})


def test_two_services_do_not_use_more_than_the_machine_has() -> None:
    # Two cores are busy all the time; the second sample reads b half a second after a.
    looks = [
        memory.Look(0.0, 0.0, {"a": memory.Usage(1.0, 0.0), "b": memory.Usage(1.0, 0.0)}),
        memory.Look(0.5, 1.0, {"a": memory.Usage(1.0, 0.5), "b": memory.Usage(1.0, 1.0)}),
    ]
    assert sum(memory.peak(looks).load.values()) == 150.0


def test_reading_from_a_service_that_has_ended_does_not_wait() -> None:
    looker = subprocess.Popen(["sh", "-c", "read -r line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    with looker, pytest.raises(StackError):
        memory.answers({"a": looker})
