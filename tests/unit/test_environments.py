"""An environment is rebuilt in its place, and is unchanged if that fails. With the real uv, and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard import environments
from switchyard.errors import BadConfiguration, BuildFailed
from switchyard.runner import Runner
from switchyard.settings import Settings


@pytest.fixture
def made(tmp_path) -> Path:
    """An environment with a file that a rebuilt one does not have."""
    _make(tmp_path)
    (tmp_path / "made" / "first").touch()
    return tmp_path / "made"


def _make(folder: Path, lock: str = "", interrupted_by: type[BaseException] | None = None) -> None:
    (folder / "lock.txt").write_text(lock)
    (folder / "more.txt").write_text("# nothing" if interrupted_by else "")

    def on_line(line: str) -> None:
        if interrupted_by and "what the project needs" in line:
            raise interrupted_by

    environments.virtualenv(folder / "lock.txt", folder / "made", "It", Runner({}), cache=True, on_line=on_line, more=folder / "more.txt")


def test_an_environment_is_built_once_and_rebuilt_for_another_lock(tmp_path, made) -> None:
    _make(tmp_path)
    assert (made / "first").exists()
    _make(tmp_path, "# another lock")
    assert not (made / "first").exists()
    assert (made / "pyvenv.cfg").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"made", "lock.txt", "more.txt"}


@pytest.mark.parametrize(
    ("lock", "error"), [("no requirement at all", BuildFailed), ("", KeyboardInterrupt)], ids=["it cannot be installed", "Ctrl-C"]
)
def test_an_environment_that_cannot_be_rebuilt_is_unchanged(tmp_path, made, lock, error) -> None:
    with pytest.raises(error):
        _make(tmp_path, lock, None if error is BuildFailed else error)
    assert (made / "first").exists()
    _make(tmp_path)
    assert (made / "first").exists()  # and complete


def test_the_next_build_restores_what_a_killed_one_has_moved_aside(tmp_path, made) -> None:
    made.rename(tmp_path / "made.old")
    made.mkdir()
    _make(tmp_path)
    assert (made / "first").exists()


def test_the_next_build_deletes_what_a_killed_one_no_longer_needed(tmp_path, made) -> None:
    (tmp_path / "made.old").mkdir()
    _make(tmp_path)
    assert (made / "first").exists()
    assert not (tmp_path / "made.old").exists()


def test_a_missing_lock_is_reported(tmp_path) -> None:
    with pytest.raises(BadConfiguration, match=r"docker/postgres/requirements\.txt is missing") as caught:
        environments.fingerprint(Settings(tmp_path, {}, "p"), "postgres", None)
    assert caught.value.next.startswith("invoke lock")
