"""The parse that is part of an image."""

import pytest

from rundbt import project_files


@pytest.fixture
def folders(tmp_path, monkeypatch):
    baked, target, source = tmp_path / "baked", tmp_path / "target", tmp_path / "source"
    for folder in (baked, target, source):
        folder.mkdir()
    (source / "dbt_project.yml").write_text("name: shop\n")
    for name in (*project_files.ARTIFACTS, "fingerprint"):
        (baked / name).write_text(f"baked {name}")
    monkeypatch.setenv("SWITCHYARD_BAKED_PATH", str(baked))
    monkeypatch.setenv("SWITCHYARD_TARGET_PATH", str(target))
    monkeypatch.setenv("SWITCHYARD_SOURCE_PATH", str(source))
    monkeypatch.setenv("DBT_PROJECT_DIR", str(target / "project"))
    monkeypatch.setenv("DBT_PACKAGES_PATH", str(tmp_path / "packages"))
    return baked, target


def held(target) -> set[str]:
    """The names in the folder, without the lock and the folder that dbt works in."""
    return {path.name for path in target.iterdir()} - {".lock", "project"}


def test_an_empty_target_gets_the_images_parse(folders) -> None:
    baked, target = folders
    project_files.adopt_baked()
    assert held(target) == held(baked)
    assert all((target / name).read_text() == (baked / name).read_text() for name in held(baked))


def test_a_newer_parse_is_kept(folders) -> None:
    _, target = folders
    (target / "fingerprint").write_text("newer")
    project_files.adopt_baked()
    assert held(target) == {"fingerprint"}
    assert (target / "fingerprint").read_text() == "newer"


def test_without_an_image_there_is_no_parse(folders, monkeypatch) -> None:
    _, target = folders
    monkeypatch.delenv("SWITCHYARD_BAKED_PATH")
    project_files.adopt_baked()
    assert held(target) == set()


@pytest.mark.parametrize("text", ["name: [\n", "name:\tshop\n\t- x\n", "- a list\n", "since: 2026-02-30\n"])
def test_a_project_file_that_cannot_be_read_is_a_failed_parse(folders, tmp_path, text) -> None:
    (tmp_path / "source" / "dbt_project.yml").write_text(text)
    with pytest.raises(project_files.ParseFailed, match=r"dbt_project\.yml cannot be read: "):
        project_files.adopt_baked()
