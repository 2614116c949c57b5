"""The content of a release file, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from switchyard import orchestrators, publish, release, settings
from switchyard import project as projects
from switchyard.errors import BadConfiguration, BadUsage, BuildFailed, StackError
from switchyard.runner import Runner
from switchyard.runtimes.docker.runtime import Docker

DIGEST = "sha256:" + "a1" * 32
GOOD = {
    "schema": release.SCHEMA,
    "tag": "2026.11.1",
    "commit": "c" * 40,
    "project": {"name": "shop", "target": "dev", "shared": True, "shop": True},
    "versions": {"dagster": {"dagster": "1.13.0"}},
    "images": {"postgres": f"localhost:5000/shop/postgres@{DIGEST}", "dagster": f"localhost:5000/shop/dagster@{DIGEST}"},
}


@pytest.fixture
def checkout(tmp_path, root):
    """A folder with an `.env.example`."""
    shutil.copy(root / ".env.example", tmp_path)
    return tmp_path


def test_the_settings_follow_from_the_release(checkout) -> None:
    (checkout / "release.json").write_text(json.dumps(GOOD))
    loaded, _ = settings.load(checkout, {"RELEASE_FILE": "release.json"})
    assert loaded["SWITCHYARD_IMAGE_DAGSTER"] == GOOD["images"]["dagster"]
    assert loaded["RUNTIME"] == "docker"
    assert loaded["WAREHOUSE"] == "shared"
    assert loaded["SWITCHYARD_SOURCE_PATH"].startswith(str(checkout / ".stack" / "releases"))
    without, _ = settings.load(checkout, {"RELEASE_FILE": "release.json"}, released=False)
    assert without["SWITCHYARD_SOURCE_PATH"] == str(checkout / "dbt_project")
    assert "SWITCHYARD_IMAGE_DAGSTER" not in without.values


@pytest.mark.parametrize(
    ("environ", "line", "image"),
    [
        ({}, "", f"redis:1@{DIGEST}"),
        ({}, "REDIS_IMAGE=mirror/redis:1\n", "mirror/redis:1"),
        ({"REDIS_IMAGE": "mine"}, "REDIS_IMAGE=mirror/redis:1\n", "mine"),
    ],
    ids=["the default", ".env", "the shell"],
)
def test_the_broker_is_that_of_the_release_unless_another_is_set(checkout, environ, line, image) -> None:
    (checkout / "release.json").write_text(json.dumps({**GOOD, "broker": f"redis:1@{DIGEST}"}))
    (checkout / ".env").write_text(f"RELEASE_FILE=release.json\n{line}")
    assert settings.load(checkout, environ)[0]["REDIS_IMAGE"] == image


@pytest.mark.parametrize(
    "change",
    [
        {"schema": release.SCHEMA + 1},
        {"images": {}},
        {"images": {"dagster": "localhost:5000/shop/dagster:latest"}},
        {"images": {"dagster": f"x; rm -rf /@{DIGEST}"}},
        {"images": None},
        {"broker": "--all-tags"},
        {"project": {}},
        {"tag": ...},
        {"versions": None},
    ],
    ids=[
        "another schema",
        "no images",
        "a tag for a digest",
        "no address",
        "null for images",
        "an option",
        "no project",
        "no tag",
        "no versions",
    ],
)
def test_an_invalid_release_is_refused(tmp_path, change) -> None:
    content = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    (tmp_path / "release.json").write_text(json.dumps(content))
    with pytest.raises(BadConfiguration, match="is not a release"):
        release.read(tmp_path / "release.json")


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"schema": 2}'])
def test_any_other_file_is_refused(tmp_path, text) -> None:
    (tmp_path / "release.json").write_text(text)
    with pytest.raises(BadConfiguration, match="is not a release"):
        release.read(tmp_path / "release.json")
    with pytest.raises(BadConfiguration, match="is not a release"):
        release.read(tmp_path / "nowhere.json")


def test_two_releases_have_separate_folders(tmp_path) -> None:
    other = {**GOOD, "images": {**GOOD["images"], "dagster": "localhost:5000/shop/dagster@sha256:" + "b2" * 32}}
    for name, content in (("one", GOOD), ("two", other)):
        (tmp_path / name).write_text(json.dumps(content))
    assert release.read(tmp_path / "one").folder(tmp_path) != release.read(tmp_path / "two").folder(tmp_path)


@pytest.fixture
def released(checkout, root):
    """A checkout that has a release in use, with its project unpacked."""
    (checkout / "docker" / "airflow").mkdir(parents=True)
    shutil.copy(root / "docker" / "airflow" / "requirements-dbt.txt", checkout / "docker" / "airflow")
    (checkout / "release.json").write_text(json.dumps({**GOOD, "project": {**GOOD["project"], "shared": False, "shop": False}}))
    place = release.read(checkout / "release.json").folder(checkout)
    place.mkdir(parents=True)
    (place / "dbt_project.yml").write_text("name: mine\nprofile: mine\n")
    secret = "{{ env_var('DBT_ENV_SECRET_PROFILE_PASSWORD') }}"
    output = {"type": "snowflake", "account": "a", "user": "{{ env_var('SNOW_USER') }}", "password": secret}
    (place / "profiles.yml").write_text(json.dumps({"mine": {"target": "dev", "outputs": {"dev": output}}}))
    (place / "packages.yml").write_text("packages: [{local: ../shared}]\n")
    return settings.load(checkout, {"RELEASE_FILE": "release.json"})[0]


def test_a_released_project_gets_the_variables_of_its_profile(released) -> None:
    """Including a secret that was in it; and its packages are in the image, no matter where they were."""
    found = projects.load(released, {"DBT_ENV_SECRET_PROFILE_PASSWORD": "s3cret", "SNOW_USER": "me"})
    assert found.in_container() == {"DBT_ENV_SECRET_PROFILE_PASSWORD": "s3cret", "SNOW_USER": "me"}
    assert projects.load(released, {"PATH": ""}).missing.keys() == {"DBT_ENV_SECRET_PROFILE_PASSWORD", "SNOW_USER"}


def commit(folder) -> None:
    """Commit everything in a folder."""
    for command in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture
def repository(tmp_path, root):
    """A checkout under git, all of it committed, and its Docker runtime."""
    folder = tmp_path / "checkout"
    for name in ("docker", "compose", "dbt_project"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    for name in (".env.example", ".gitignore"):
        shutil.copy(root / name, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder)
    loaded, _ = settings.load(folder, {})
    return Docker(loaded, orchestrators.load_all(folder), Runner(loaded.values))


def test_a_release_that_cannot_be_saved_is_refused_before_it_is_built(repository) -> None:
    with pytest.raises(BadUsage, match="cannot be a folder"):
        publish.publish(repository, "localhost:5000/shop", "1", ["dagster"], repository.settings.root / ".gitignore")


@pytest.mark.parametrize("tag", ["", "-x", "a/b", "1" * 129])
def test_an_invalid_tag_is_refused_before_anything_is_built(tag) -> None:
    with pytest.raises(BadUsage, match="is not a valid tag"):
        publish.publish(None, "localhost:5000/shop", tag, [], None)


@pytest.mark.parametrize("registry", ["", "https://localhost:5000", "Shop", "localhost:5000/shop/"])
def test_an_invalid_registry_is_refused_before_anything_is_built(registry) -> None:
    with pytest.raises(BadUsage, match="is not a registry address"):
        publish.publish(None, registry, "1", [], None)


def test_an_uncommitted_change_is_not_released(repository) -> None:
    root = repository.settings.root
    assert len(publish.committed(repository, root)) == 40
    new = root / "dbt_project" / "models" / "new.sql"
    new.write_text("select 1")
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=root, check=True)
    with pytest.raises(BadUsage, match="not committed") as caught:
        publish.committed(repository, root)
    assert "new.sql" in caught.value.why


# All images are outdated, the registry has none of them, and a build executes $BUILD. The next step, a build with labels, fails.
ENGINE = """#!/bin/sh
echo "$@" >> "$RECORD"
case "$*" in
*imagetools*) echo not found >&2; exit 1 ;;
*inspect*redis*) exit 1 ;;
*inspect*) echo '{}' ;;
compose*build*) eval "$BUILD" ;;
build*) exit 1 ;;
esac
"""


@pytest.fixture
def engine(tmp_path, repository, monkeypatch):
    """A fake docker program; returns a function that releases, and returns the error and the calls."""
    if sys.platform == "win32":
        pytest.skip("the fake docker is a POSIX shell script")
    program, record = tmp_path / "bin" / "docker", tmp_path / "record"
    program.parent.mkdir()
    program.write_text(ENGINE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("RECORD", str(record))

    def released(build: str = "") -> tuple[StackError, str]:
        monkeypatch.setenv("BUILD", build)
        with pytest.raises(StackError) as caught:
            publish.publish(repository, "localhost:1/none", "1", ["dagster"], None)
        return caught.value, record.read_text()

    return released


SAVE = "cd '{root}' && echo select 1 > dbt_project/models/new.sql"
COMMIT = " && git add . && git -c user.name=t -c user.email=t@t commit -qm new --allow-empty"


@pytest.mark.parametrize(
    ("build", "what"), [(SAVE, "changes that are not committed"), (SAVE + COMMIT, "There was a commit")], ids=["an edit", "a commit"]
)
def test_a_change_during_the_builds_is_not_released(engine, repository, build, what) -> None:
    error, calls = engine(build.format(root=repository.settings.root))
    assert what in error.what
    assert "\nbuild " not in calls


def test_a_release_does_not_need_the_broker(engine, repository) -> None:
    repository.settings.values["WORKERS"] = "2"
    error, calls = engine()
    assert "could not be built" in error.what
    assert "\npull " not in calls


def test_a_push_that_fails_leaves_no_file_behind(repository, monkeypatch) -> None:
    """In a folder that git does not ignore, the next try would find an uncommitted file."""

    def failing(*_: object) -> str:
        raise BuildFailed("It could not be pushed.")

    folder = repository.settings.root / "published"
    monkeypatch.setattr(publish, "unused", lambda *_: None)
    monkeypatch.setattr(publish.lifecycle, "build", lambda *_: None)
    monkeypatch.setattr(publish, "labelled", lambda *_: DIGEST)
    monkeypatch.setattr(publish, "tried", lambda *_: None)
    monkeypatch.setattr(repository.images, "copy_out", lambda _, paths: [path.write_text("{}") for path in paths.values()])
    monkeypatch.setattr(publish, "push", failing)
    with pytest.raises(BuildFailed):
        publish.publish(repository, "localhost:1/none", "1", ["dagster"], folder)
    assert not folder.exists()


def test_what_git_ignores_is_not_released(repository) -> None:
    publish.tracked(repository, repository.project)
    root = repository.settings.root
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "*.key.json\n")
    (root / "dbt_project" / "seeds" / "my.key.json").write_text("secret")
    with pytest.raises(BadUsage, match="git ignores") as caught:
        publish.tracked(repository, repository.project)
    assert caught.value.why == "seeds/my.key.json"


def test_a_package_in_a_submodule_is_released(repository, tmp_path) -> None:
    """The outer repository lists none of its files."""
    package, root = tmp_path / "package", repository.settings.root
    (package / "macros").mkdir(parents=True)
    (package / "dbt_project.yml").write_text("name: package\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]
    for folder, command in (
        (package, ["init", "-q"]), (package, ["add", "."]), (package, ["commit", "-qm", "all"]),
        (root, ["submodule", "--quiet", "add", str(package), "dbt_project/packages/package"]),
    ):  # fmt: skip
        subprocess.run([*git, *command], cwd=folder, check=True)
    publish.tracked(repository, repository.project)


def test_what_git_ignores_in_a_local_package_is_not_released(repository) -> None:
    root = repository.settings.root
    shutil.copytree(root / "dbt_project" / "macros", root / "shared" / "macros")
    (root / "shared" / "dbt_project.yml").write_text("name: shared\n")
    (root / "dbt_project" / "packages.yml").write_text("packages: [{local: ../shared}]\n")
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "*.key.json\n")
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    publish.tracked(repository, repository.project)
    (root / "shared" / "my.key.json").write_text("secret")
    with pytest.raises(BadUsage, match="git ignores") as caught:
        publish.tracked(repository, repository.project)
    assert caught.value.what.startswith(str(root / "shared"))
    assert caught.value.why == "my.key.json"


def test_a_folder_without_git_is_not_released(repository, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    with pytest.raises(BadUsage, match="has no git commit") as caught:
        publish.committed(repository, tmp_path_factory.mktemp("plain"))
    assert "not a git repository" in caught.value.why
