"""The files that another machine gets for its workers."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from dataclasses import replace

import pytest
import yaml
from dotenv import dotenv_values

from switchyard import eject, orchestrators, release, remote_workers
from switchyard import project as projects
from switchyard.errors import BadUsage
from switchyard.runner import Runner
from switchyard.runtimes.docker import runtime
from switchyard.runtimes.runtime import Service

from .test_eject import CONTENT, NAMES

READY = {"RELEASE_FILE": "release.json", "WORKERS": "1", "NETWORK": "overlay"}


@pytest.fixture
def written(root, unconfigured, tmp_path):
    """Writes the files for an orchestrator whose project has a variable and a file, and returns their folder."""

    def write(name: str):
        (tmp_path / "release.json").write_text(json.dumps(CONTENT))
        (tmp_path / "key.p8").write_bytes(b"\x30\x82\xff")
        loaded = replace(unconfigured, values={**unconfigured.values, "REDIS_PASSWORD": "of-redis"})
        found = replace(projects.load(loaded, {}), variables={"API_KEY": "it's $mine"}, files={"KEY_FILE": tmp_path / "key.p8"})
        target = orchestrators.load_all(root)[name]
        files = remote_workers.files(loaded, target, found, release.read(tmp_path / "release.json"))
        eject.write(tmp_path / name, files, "invoke worker-env", "")
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", NAMES)
def test_the_compose_file_has_only_the_worker_and_joins_the_stacks_network(written, root, name) -> None:
    folder = written(name)
    content = yaml.safe_load((folder / "compose.yaml").read_text())
    known = orchestrators.load_all(root)[name]
    ((service, body),) = content["services"].items()
    assert service == known.worker
    assert body["image"] == CONTENT["images"][name]
    assert not body.keys() & {"build", "pull_policy", "container_name", "ports", "depends_on"}
    assert body["network_mode"] == "switchyard_default"
    assert "./KEY_FILE:/opt/dbt/files/KEY_FILE:ro" in body["volumes"]
    assert (folder / "KEY_FILE").read_bytes() == b"\x30\x82\xff"  # a DER file is not text
    assert stat.S_IMODE((folder / "KEY_FILE").stat().st_mode) & 0o4  # for the container's account; the folder is private
    assert not stat.S_IMODE(folder.stat().st_mode) & 0o77
    own = yaml.safe_load(known.file.read_text())["services"][known.worker]
    assert body["environment"].keys() == {*own["environment"], "API_KEY", "KEY_FILE", remote_workers.REMOTE}


@pytest.mark.parametrize("name", NAMES)
def test_its_env_has_each_variable_and_is_private(written, name) -> None:
    folder = written(name)
    asked = set(re.findall(r"\$\{(\w+)", (folder / "compose.yaml").read_text()))
    found = dotenv_values(folder / ".env", interpolate=False)
    assert found.keys() == asked
    assert found["PROJECT_API_KEY"] == "it's \\$mine"  # Compose reads the file, and escapes a $ in double quotes like this
    assert "mine" not in (folder / "compose.yaml").read_text().replace("API_KEY: ${PROJECT_API_KEY}", "")
    assert not stat.S_IMODE((folder / ".env").stat().st_mode) & 0o77


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"RELEASE_FILE": ""}, "No release", id="without a release"),
        pytest.param({"WORKERS": ""}, "no workers", id="without workers"),
        pytest.param({"NETWORK": "bridge"}, "this machine only", id="without a network for it"),
    ],
)
def test_it_is_refused_if_the_other_machine_could_not_join(unconfigured, changed, message) -> None:
    shop = projects.load(unconfigured, {})
    remote_workers.check(replace(unconfigured, values={**unconfigured.values, **READY}), shop)
    with pytest.raises(BadUsage, match=message) as caught:
        remote_workers.check(replace(unconfigured, values={**unconfigured.values, **READY, **changed}), shop)
    assert caught.value.next


def test_a_warehouse_that_is_a_file_is_not_shared(unconfigured) -> None:
    found = replace(
        projects.load(unconfigured, {}), output={"type": "duckdb", "path": "{{ env_var('SWITCHYARD_WAREHOUSE_PATH') }}/x.duckdb"}
    )
    with pytest.raises(BadUsage, match="file on this machine"):
        remote_workers.check(replace(unconfigured, values={**unconfigured.values, **READY}), found)


def test_a_stack_that_was_started_without_workers_is_refused(root) -> None:
    target = orchestrators.load_all(root)["airflow"]
    page, worker = (Service("1", "", name, "airflow", False, "running", "healthy", "") for name in (target.service, target.worker))
    with pytest.raises(BadUsage, match="was started without workers"):
        remote_workers.require_workers(target, [page], "1")
    remote_workers.require_workers(target, [page, worker], "1")


def test_a_stack_that_was_started_on_a_network_of_this_machine_is_refused() -> None:
    with pytest.raises(BadUsage, match="still on this machine only"):
        remote_workers.require_network("bridge")
    remote_workers.require_network("overlay")


@pytest.mark.skipif(sys.platform == "win32", reason="the fake docker is a POSIX shell script")
def test_a_network_that_is_still_in_use_is_reported_when_the_wait_is_over(root, unconfigured, tmp_path, monkeypatch, capsys) -> None:
    """A terminal has erased the progress line by then."""
    (tmp_path / "docker").write_text('#!/bin/sh\ncase "$*" in *network*) echo overlay ;; esac\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(runtime, "NETWORK_TIMEOUT_S", 0)
    runtime.Docker(unconfigured, orchestrators.load_all(root), Runner(unconfigured.values)).down(lambda _: None)
    assert "still uses the stack's network" in capsys.readouterr().out
