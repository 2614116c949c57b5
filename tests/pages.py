"""The sign-in in front of Dagster's page, in either runtime."""

from __future__ import annotations

import http.client
import os
import socket
import struct

from rundbt import api

from .stacks import Stack


def answer(stack: Stack, path: str = "/", *, host: str = "localhost", body: str | None = None, **headers: str) -> tuple[int, str, str]:
    """Status, cookie and text of the page's answer to a request with the host name ``host``."""
    port = stack.ports["DAGSTER_PORT"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Host": f"{host}:{port}", "Content-Type": "application/json", **headers}
    connection.request("GET" if body is None else "POST", path, body, headers)
    found = connection.getresponse()
    text = found.read().decode()
    connection.close()
    return found.status, (found.getheader("Set-Cookie") or "").partition(";")[0], text


def asks_for_the_password(stack: Stack) -> None:
    """A user who signs in reaches the page, also by WebSocket; nobody else does, no other site, and not under another host name."""
    password = stack.secrets()["DAGSTER_ADMIN_PASSWORD"]
    right = api.basic_auth(f"admin:{password}")
    asked = {"path": "/graphql", "body": '{"query": "{version}"}'}
    for guess in ("admin:admin", f"dagster:{password}", "admin:", f"admin:{password}x"):
        assert answer(stack, **api.basic_auth(guess))[0] == 401
    assert (answer(stack)[0], answer(stack, **asked)[0], answer(stack, Cookie="dagster=x")[0]) == (401, 401, 401)
    smuggled = "POST /graphql?query={version} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert answer(stack, "/server_info")[0] == 200
    assert answer(stack, "/server_info", body=smuggled)[0] == 401
    assert answer(stack, "http://example.invalid/", **right)[0] in (400, 403)
    assert answer(stack, "//example.invalid/", **right)[0] == 200  # the page's own answer to an address that it does not know

    status, cookie, text = answer(stack, **right)
    assert (status, 'id="root"' in text) == (200, True)
    assert answer(stack, **asked, Cookie=cookie)[2].startswith('{"data":{"version":')
    assert answer(stack, **asked, **right, Origin=f"http://localhost:{stack.ports['DAGSTER_PORT']}")[0] == 200
    for stranger in (
        {"host": "example.invalid"},
        {"Origin": "http://example.invalid"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ):
        assert answer(stack, **asked, **right, **stranger)[0] == 403
        assert answer(stack, **{**asked, **stranger}, Cookie=cookie)[0] == 403

    forged = {"path": "/graphql?query=mutation%20{x}", **right}
    assert answer(stack, **forged)[0] == 403
    assert answer(stack, **{**asked, "Content-Type": "text/plain"}, **right)[0] == 403
    assert answer(stack, **asked, **right, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert answer(stack, "/runs", **right, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert answer(stack, Authorization="Basic \xff\xfe")[0] == 401

    assert "connection_ack" in web_socket(stack, f"Cookie: {cookie}")
    assert "401 Unauthorized" in web_socket(stack)
    assert "403 Forbidden" in web_socket(stack, f"Cookie: {cookie}", "Origin: http://example.invalid")


def web_socket(stack: Stack, *headers: str) -> str:
    """The answer on a WebSocket to the first message that the page sends."""
    port = stack.ports["DAGSTER_PORT"]
    lines = ["GET /graphql HTTP/1.1", f"Host: localhost:{port}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: graphql-ws", *headers, "", ""]
    message, mask = b'{"type": "connection_init"}', os.urandom(4)
    frame = struct.pack("!BB4s", 0x81, 0x80 | len(message), mask) + bytes(byte ^ mask[n % 4] for n, byte in enumerate(message))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        reply = connection.recv(65536)
        if b" 101 " in reply:
            connection.sendall(frame)
            while b"connection_ack" not in reply and (more := connection.recv(65536)):
                reply += more
    return reply.decode(errors="replace")
