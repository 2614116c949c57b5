"""A company's own certificates, in ``certs/``: checked here, and trusted in the images and in the native runtime."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from switchyard.errors import BadConfiguration

FOLDER = "certs"
# Where the clients look for trusted certificates: OpenSSL, Python and uv; requests; curl; pip; git. The images set these too, except
# that of git, which reads the system's store there.
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def find(root: Path) -> list[Path]:
    """The certificates in the checkout's ``certs/``."""
    return sorted((root / FOLDER).glob("*.crt"))


def check(root: Path) -> str:
    """Make sure that every file in ``certs/`` is a certificate that will be trusted, and return their number.

    Raises:
        BadConfiguration: one is not, or would be ignored because of its name.
    """
    for path in sorted((root / FOLDER).glob("*")):
        if path.name == "README.md" or path.name.startswith("."):
            continue
        if path.suffix != ".crt" or not path.is_file():
            raise _bad(path, "Only files whose names end in .crt are read.")
        blocks = _PEM.findall(path.read_text(encoding="utf-8", errors="replace"))
        if not blocks:
            raise _bad(path, "It holds no lines from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(blocks))
        except ssl.SSLError as error:
            raise _bad(path, str(error)) from None
    return f"{len(find(root))} certificates of your own"


def _bad(path: Path, why: str) -> BadConfiguration:
    name = f"{FOLDER}/{path.name}"
    return BadConfiguration(f"{name} is not a certificate in PEM form.", why, f"Move it away, or convert it: see {FOLDER}/README.md.")


def bundle(root: Path) -> Path:
    """Where `write_bundle` puts the certificates that are trusted without Docker."""
    return root / ".stack" / "native" / "certificates.pem"


def variables(root: Path) -> dict[str, str]:
    """The variables that make clients trust ``certs/`` without Docker; none where the folder is empty."""
    return {name: str(bundle(root)) for name in VARIABLES} if find(root) else {}


def write_bundle(root: Path) -> Mapping[str, str]:
    """Write the certificates that Python trusts on this machine, and those in ``certs/``, into one file, and return `variables`.

    Each client reads a single file, and reads it instead of all other places.
    """
    if found := find(root):
        texts = [*_trusted(), *(path.read_text(encoding="utf-8", errors="replace") for path in found)]
        blocks = dict.fromkeys(block for text in texts for block in _PEM.findall(text))
        bundle(root).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        bundle(root).write_text("\n".join(blocks) + "\n", encoding="ascii")
    return variables(root)


def _trusted() -> list[str]:
    """The certificates that Python trusts on this machine, with SSL_CERT_FILE and SSL_CERT_DIR respected."""
    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    for path in Path(folder).iterdir() if folder else ():  # OpenSSL itself reads these only on demand
        with suppress(OSError, ssl.SSLError):
            context.load_verify_locations(path)
    return [ssl.DER_cert_to_PEM_cert(certificate) for certificate in context.get_ca_certs(binary_form=True)]
