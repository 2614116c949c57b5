"""The folder `certs/`: what may be in it, and which programs trust it without Docker."""

import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from switchyard import certificates
from switchyard.errors import BadConfiguration

from ..certificates import company as open_company


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    with open_company(tmp_path_factory.mktemp("company")) as opened:
        yield opened


@pytest.fixture
def checkout(tmp_path, company):
    """A folder with the company's certificate in `certs/`."""
    (tmp_path / "certs").mkdir()
    shutil.copy(company.root, tmp_path / "certs" / "company.crt")
    return tmp_path


def test_an_empty_folder_changes_nothing(tmp_path, root) -> None:
    (tmp_path / "certs").mkdir()
    shutil.copy(root / "certs" / "README.md", tmp_path / "certs")
    certificates.check(tmp_path)
    assert certificates.write_bundle(tmp_path) == {}


def test_a_certificate_may_have_comments_and_windows_line_ends(checkout) -> None:
    path = checkout / "certs" / "company.crt"
    path.write_bytes("# Zürich\r\n".encode() + path.read_bytes().replace(b"\n", b"\r\n"))
    certificates.check(checkout)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("notes.txt", b"hello", id="something else"),
        pytest.param("company.pem", b"", id="another name"),
        pytest.param("empty.crt", b"", id="nothing in it"),
        pytest.param("binary.crt", b"0\x82\x03\xff", id="DER"),
        pytest.param("cut.crt", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", id="half of one"),
    ],
)
def test_a_file_that_is_not_a_certificate_is_reported(checkout, name, content) -> None:
    (checkout / "certs" / name).write_bytes(content)
    with pytest.raises(BadConfiguration, match=f"certs/{name}"):
        certificates.check(checkout)


def test_python_trusts_it_in_addition_to_all_others(checkout, company) -> None:
    before = ssl.create_default_context()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(company.url, context=before)
    bundle = certificates.write_bundle(checkout)["SSL_CERT_FILE"]
    after = ssl.create_default_context(cafile=bundle)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(company.url, context=after)
    assert {der["serialNumber"] for der in before.get_ca_certs()} < {der["serialNumber"] for der in after.get_ca_certs()}


def test_uv_installs_from_a_mirror_with_the_companys_certificate(checkout, company) -> None:
    argv = [sys.executable, "-m", "uv", "pip", "install", "--no-cache", "--no-config", "--dry-run", "--index-url", company.url, "nothing"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}

    def output(**env: str) -> str:
        return subprocess.run(argv, env={**clean, "UV_HTTP_RETRIES": "0", **env}, capture_output=True, text=True).stderr

    assert "certificate" in output()
    assert "nothing was not found" in output(**certificates.write_bundle(checkout))


def test_git_trusts_it(checkout, company) -> None:
    argv = ["git", "ls-remote", company.url]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") and "proxy" not in key.lower()}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}

    def output(**env: str) -> str:
        return subprocess.run(argv, cwd=checkout, env={**clean, **alone, **env}, capture_output=True, text=True).stderr

    assert "certificate" in output()
    assert "not found" in output(**certificates.write_bundle(checkout))
