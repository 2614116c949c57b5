"""The Docker runtime's checks before a start that need no engine."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from switchyard import caller, orchestrators, settings
from switchyard import project as projects
from switchyard.errors import BadConfiguration
from switchyard.runner import Runner
from switchyard.runtimes.docker.checks import DockerChecks
from switchyard.runtimes.docker.engine import Engine


@pytest.mark.skipif(os.name == "nt", reason="a container of Docker Desktop may read every file")
@pytest.mark.parametrize(("mode", "own", "taken"), [(0o600, False, False), (0o604, False, True), (0o600, True, True)])
def test_a_file_of_the_profile_that_a_container_cannot_read_is_reported(root, tmp_path, mode, own, taken) -> None:
    loaded = settings.defaults(root, {})
    target = orchestrators.load_all(root)["airflow"]
    key = tmp_path / "key.p8"
    key.touch()
    key.chmod(mode)
    (tmp_path / "docker" / "airflow").mkdir(parents=True)
    (tmp_path / "docker" / "airflow" / "Dockerfile").write_text(f"USER root\nUSER {os.getuid() if own else os.getuid() + 1}:0\n")
    place = tmp_path / "project"
    place.mkdir()
    (place / "dbt_project.yml").touch()
    place.chmod(0o755)
    (place / "dbt_project.yml").chmod(0o644)
    found = replace(projects.load(loaded, {}), folder=place, files={"SWITCHYARD_FILE_KEY": key})
    values = replace(loaded, root=tmp_path)
    engine = SimpleNamespace(settings=values, runner=None, own=None, project=found, machine=(1, 1, True))
    (check,) = (one for one in DockerChecks(engine, None, None).of([target]) if one.what == "dbt project's files")
    if taken:
        assert check.run() == "readable by the containers"
        return
    with pytest.raises(BadConfiguration) as caught:
        check.run()
    assert f"chmod go+r {key}" in caught.value.next


@pytest.mark.parametrize("there", [True, False])
def test_sign_ins_and_plugins_in_a_read_only_home_are_found(root, tmp_path, monkeypatch, there) -> None:
    monkeypatch.setattr(caller, "has_home", lambda: False)  # root may write anywhere
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    if there:
        (tmp_path / ".docker").mkdir()
    env = Engine(replace(settings.defaults(root, {}), root=tmp_path / "checkout"), {}, Runner({})).runner.env
    own = tmp_path / "checkout" / ".stack" / "home"
    assert env["HOME"] == str(own)
    assert env.get("DOCKER_CONFIG") == (str(tmp_path / ".docker") if there else None)
    assert env.get("BUILDX_CONFIG") == (str(own / ".docker" / "buildx") if there else None)


@pytest.mark.skipif(os.name == "nt", reason="the script is for a POSIX shell")
def test_an_engine_whose_data_cannot_be_looked_at_is_accepted(root, tmp_path) -> None:
    folder = tmp_path / ("x" * 300)  # as root may look into every folder, its name is too long instead
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\nprintf '{psutil.virtual_memory().total}\\t{folder}\\n'\n")
    docker.chmod(0o755)
    engine = Engine(settings.defaults(root, {}), {}, Runner({"PATH": str(tmp_path)}))
    assert engine.machine == (psutil.virtual_memory().total, folder, False)
