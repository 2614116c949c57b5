"""``python - HOST PORT METHOD PATH BODY`` with this file as the script: print what answers there without a password.

Standard library only: it runs in containers that have nothing of this project.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys

ANSWER_TIMEOUT_S = 10  # seconds
# The first bytes of an HTTP/2 client, such as gRPC's: the preface, and settings with all defaults.
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4  # the type of the frame that such a server answers with


def answer(host: str, port: int, method: str, path: str, body: str) -> str:
    """``HTTP`` with the status, ``HTTP/2``, or an empty text for neither."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        return f"HTTP {connection.getresponse().status}"
    except (OSError, http.client.HTTPException):
        pass  # it may use HTTP/2
    finally:
        connection.close()
    try:
        with socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S) as connected:
            connected.sendall(HTTP_2)
            head = connected.recv(9, socket.MSG_WAITALL)
            return "HTTP/2" if len(head) == 9 and head[3] == SETTINGS else ""
    except OSError:
        return ""


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
