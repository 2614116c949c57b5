"""What a release's file says, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from stack import release, settings
from stack.errors import BadConfiguration

DIGEST = "sha256:" + "a1" * 32
GOOD = {
    "schema": 1,
    "tag": "2026.11.1",
    "commit": "c" * 40,
    "project": {"name": "shop", "target": "dev", "shared": True, "shop": True},
    "images": {"postgres": f"localhost:5000/shop/postgres@{DIGEST}", "dagster": f"localhost:5000/shop/dagster@{DIGEST}"},
}


@pytest.fixture
def checkout(tmp_path, root):
    """A folder with the settings' example."""
    shutil.copy(root / ".env.example", tmp_path)
    return tmp_path


def test_the_settings_follow_from_the_release(checkout) -> None:
    (checkout / "release.json").write_text(json.dumps(GOOD))
    loaded, _ = settings.load(checkout, {"RELEASE": "release.json"})
    assert loaded["SWITCHYARD_IMAGE_DAGSTER"] == GOOD["images"]["dagster"]
    assert loaded["RUNTIME"] == "docker"
    assert loaded["WAREHOUSE"] == "shared"
    assert loaded["SWITCHYARD_SOURCE_PATH"].startswith(str(checkout / ".stack" / "releases"))
    without, _ = settings.load(checkout, {"RELEASE": "release.json"}, released=False)
    assert without["SWITCHYARD_SOURCE_PATH"] == str(checkout / "dbt_project")
    assert "SWITCHYARD_IMAGE_DAGSTER" not in without.values


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"images": {}},
        {"images": {"dagster": "localhost:5000/shop/dagster:latest"}},
        {"images": {"dagster": f"x; rm -rf /@{DIGEST}"}},
        {"images": None},
        {"project": {}},
        {"tag": ...},
    ],
    ids=["another schema", "no images", "a tag for a digest", "no address", "images that are none", "no project", "no tag"],
)
def test_what_is_no_release_is_refused(tmp_path, change) -> None:
    content = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    (tmp_path / "release.json").write_text(json.dumps(content))
    with pytest.raises(BadConfiguration, match="is no release"):
        release.read(tmp_path / "release.json")


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"schema": 1}'])
def test_any_other_file_is_refused(tmp_path, text) -> None:
    (tmp_path / "release.json").write_text(text)
    with pytest.raises(BadConfiguration, match="is no release"):
        release.read(tmp_path / "release.json")
    with pytest.raises(BadConfiguration, match="is no release"):
        release.read(tmp_path / "nowhere.json")


def test_two_releases_have_folders_of_their_own(tmp_path) -> None:
    other = {**GOOD, "images": {**GOOD["images"], "dagster": "localhost:5000/shop/dagster@sha256:" + "b2" * 32}}
    for name, content in (("one", GOOD), ("two", other)):
        (tmp_path / name).write_text(json.dumps(content))
    assert release.read(tmp_path / "one").folder(tmp_path) != release.read(tmp_path / "two").folder(tmp_path)
