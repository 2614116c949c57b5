"""A company with its own certificate authority, and a server with a certificate that this authority signed."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .stacks import unavailable


@dataclass(frozen=True)
class Company:
    """The company.

    Attributes:
        root: its root certificate.
        url: the address of a server whose certificate the root signed; it answers every request with 404.
    """

    root: Path
    url: str


@contextmanager
def company(folder: Path) -> Iterator[Company]:
    """Make the company's certificates in ``folder``, and run its server on 127.0.0.1."""
    if not shutil.which("openssl"):
        unavailable("openssl is not installed")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(
        *made, "-keyout", "root.key", "-out", "root.crt", "-subj", "/CN=Company Root",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", *made[2:7], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    signed = ("-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Company(folder / "root.crt", f"https://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


class Nothing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 404."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output to themselves."""
