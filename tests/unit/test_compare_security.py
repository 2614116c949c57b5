"""What a comparison concludes from sockets, answers and rights."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from compare import probe, security
from compare.alerting import Receiver
from compare.products.product import PageRequest
from compare.report import Report
from switchyard.errors import StackError

PROC_NET_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0B00007F:8D1F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:10AA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000
   2: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000
   3: 0100007F:0BB9 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A
   1: 0000000000000000FFFF00000100007F:0BBA 00000000000000000000000000000000:0000 0A
"""
STATUS = "Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapPrm:\t{caps}\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"


def test_a_containers_listeners_are_read_without_the_engines_own() -> None:
    found = [(str(security.plain(address)), port) for address, port in security.listeners(PROC_NET_TCP)]
    assert found == [("::", 3000), ("127.0.0.1", 3001), ("127.0.0.1", 3002), ("0.0.0.0", 4266)]


@pytest.mark.parametrize(("address", "hosts"), [("0.0.0.0", ("127.0.0.1",)), ("::", ("::1", "127.0.0.1")), ("127.0.0.1", ("127.0.0.1",))])
def test_a_socket_is_reached_from_its_own_machine(address, hosts) -> None:
    assert security.reached(ip_address(address)) == hosts


def test_what_listens_where_is_listed_by_service() -> None:
    sockets = [("page", "0.0.0.0", 3000), ("page", "127.0.0.1", 3001), ("code", "::", 4266), ("api", "::ffff:127.0.0.1", 80)]
    assert security.places({"service": service, "address": address, "port": port} for service, address, port in sockets) == [
        "page 0.0.0.0:3000, 127.0.0.1:3001",
        "code [::]:4266",
        "api 127.0.0.1:80",
    ]


def test_an_error_of_a_server_is_not_a_refusal() -> None:
    assert security.refused(security.NO_PASSWORD, 401).good
    assert security.refused(security.NO_PASSWORD, 200).good is False
    for code in (0, 404, 500):
        with pytest.raises(StackError):
            security.refused(security.WRONG_HOST, code)


def test_switchyards_guard_does_not_count_for_the_product() -> None:
    guarded = security.refused(security.NO_PASSWORD, 401, "by a guard")
    assert (guarded.verdict, guarded.good) == ("refused by a guard", None)
    titles = {name: {"title": name.title(), "versions": {}, "settings": {}} for name in ("a", "b")}
    made = Report({"orchestrators": titles, "rows": {}})
    made.declare(security.SECTION, security.SECTION.scenarios)
    made.add(guarded, "a", 0)
    made.add(security.refused(security.NO_PASSWORD, 401), "b", 0)
    assert security.sentence(made).startswith(
        "1 of 2 refused a request without a password by themselves, and Switchyard's guard is in front of A;"
    )


@pytest.mark.parametrize(
    ("uid", "caps", "found"),
    [
        (1000, "0" * 16, {"root": False, "capable": False}),
        (0, "0" * 16, {"root": True, "capable": False}),
        (1000, "00000000a80425fb", {"root": False, "capable": True}),
    ],
)
def test_rights_are_read_from_a_process(uid, caps, found) -> None:
    assert security.allowed(STATUS.format(uid=uid, caps=caps)) == found


@pytest.mark.parametrize(
    ("answers", "verdict", "good"),
    [
        ((403, 403, ""), "refused", True),
        ((200, 405, ""), "done; a browser would not send it", True),
        ((200, 200, "http://localhost:1"), "done; a browser would not send it", True),
        ((200, 200, "*"), "done; a browser may send it, to a page that knows the password", None),
        ((200, 200, "http://elsewhere.example"), "done; a browser may send it, to a page that knows the password", None),
    ],
)
def test_a_write_with_a_foreign_origin_is_judged_as_a_browser_would(answers, verdict, good) -> None:
    found = security.written(*answers)
    assert (found.value, found.verdict, found.good) == (answers[0], verdict, good)


@contextmanager
def listening(reply: bytes) -> Iterator[int]:
    """A server that answers each connection's first bytes with ``reply``, and closes it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(reply)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("reply", "answer"),
    [(b"\0\0\0\4\0\0\0\0\0", "HTTP/2"), (b"\0\0\0\7\0\0\0\0\0", ""), (b"", ""), (b"HTTP/1.1 401 no\r\n\r\n", "HTTP 401")],
)
def test_a_socket_is_probed_with_http_and_http_2(reply, answer) -> None:
    with listening(reply) as port:
        assert probe.answer("127.0.0.1", port, "GET", "/", "") == answer


def test_no_answer_is_no_refusal_and_no_write() -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert security.status(url, PageRequest("GET", "")) == (0, {})
    with pytest.raises(StackError, match="no answer"):
        security.written(0, 0, "")


def test_any_answer_is_reported() -> None:
    with Receiver() as receiver:
        host, port = receiver.url.split("/")[2].split(":")
        assert probe.answer(host, int(port), "POST", "/", "{}") == "HTTP 200"
        assert probe.answer(host, int(port), "GET", "/", "") == "HTTP 501"
