"""Security: who can sign in, which sockets listen, and which rights the services have."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import psutil

from compare import probe
from compare.model import Found, Row, Scenario, Section
from compare.products.product import PageRequest, product
from compare.report import Report, listed
from compare.trial import Trial
from rundbt import api
from switchyard.errors import StackError
from switchyard.runtimes.native.processes import Processes
from switchyard.runtimes.native.runtime import Native

NO_PASSWORD = Row(
    "no_password",
    "Reading runs without a password",
    "HTTP status of a request to the page's port for the data that the page shows.",
    better=None,
)
WRONG_PASSWORD = Row(
    "signin_wrong_password", "Signing in with a wrong password", "HTTP status, as `admin` with another password.", better=None
)
WRONG_HOST = Row(
    "wrong_host",
    "A wrong Host header",
    "HTTP status of the same request with the password and `Host: elsewhere.example`, as after DNS rebinding. A browser does not send a"
    " password that it has for another name.",
    better=None,
)
FOREIGN_ORIGIN = Row(
    "foreign_origin",
    "A write with a foreign Origin",
    "HTTP status of a write that changes nothing, with the password and `Origin: http://elsewhere.example`. Before such a request, a"
    " browser asks whether that origin may send it (CORS preflight), and sends it only if it may.",
    better=None,
)
LISTENING = Row(
    "listening",
    "Sockets that listen",
    "TCP sockets of the orchestrator's services, including Switchyard's guard in front of Dagster's page, without PostgreSQL's; in Docker"
    " with the address in the container.",
    better=None,
)
OPEN = Row(
    "open_sockets",
    "Sockets that need no password",
    "Each of them gets the request for runs without a password, and the first bytes of HTTP/2, which gRPC uses. A socket counts if its"
    " answer is not 401 or 403. The health check of Prefect's worker, which Switchyard turns on, is one.",
    better=None,
)
RIGHTS = Row(
    "rights",
    "Containers with more rights",
    "Containers that run as root, have a capability, or have a writable root file system.",
)
ROLES = Row(
    "roles",
    "Roles for users",
    "Whether the product's API, in this setting, has roles: its own description is searched for the word.",
    better=None,
)

ELSEWHERE = "elsewhere.example"
NO_ANSWER = "There is no answer."
REFUSED = ("HTTP 401", "HTTP 403")
LISTEN = "0A"  # a socket's state in /proc/net/tcp
DOCKERS = ip_address("127.0.0.11")  # the engine's own name server, in each container


def status(url: str, request: PageRequest, **headers: str) -> tuple[int, dict[str, str]]:
    """The HTTP status (0 if there is no answer) and the headers of the answer; an _ in an argument's name becomes a - in the header."""
    named = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    body = None if request.body is None else json.dumps(request.body).encode()
    message = urllib.request.Request(url + request.path, body, named, method=request.method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(message, timeout=30) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)
    except OSError:
        return 0, {}


def refused(row: Row, code: int, guard: str = "") -> Found:
    """The measurement of a row whose request has to be refused.

    Args:
        row: the row.
        code: the HTTP status.
        guard: what refuses it, if that is not the product.

    Raises:
        StackError: it was neither answered nor refused.
    """
    if code in (0, 404) or code >= 500:
        raise StackError(f"The answer is HTTP {code}." if code else NO_ANSWER)
    good = (
        None if guard or row is WRONG_HOST else code >= 400
    )  # a guard is not the product's own, and WRONG_HOST is for the reader to judge
    return Found(row.id, code, f"refused {guard}".rstrip() if code >= 400 else "answered", good)


def sign_in(trial: Trial) -> Iterator[Found]:
    """Send requests without the password, the right host name or the page's own origin, which should be refused."""
    asked = product(trial.rig, trial.name)
    url = asked.url
    yield refused(NO_PASSWORD, status(url, asked.read)[0], asked.guard)
    try:
        wrong = status(url, asked.read, **asked.sign_in(f"not {asked.password}"))[0]
    except api.ApiError as error:  # if the API first needs a token
        wrong = error.status or 0
    yield refused(WRONG_PASSWORD, wrong, asked.guard)
    right = asked.signed_in
    if (code := status(url, asked.read, **right)[0]) >= 400:
        raise StackError(f"With the password, too, the answer is HTTP {code}.")
    yield refused(WRONG_HOST, status(url, asked.read, **right, Host=ELSEWHERE)[0], asked.guard)
    if (code := status(url, asked.write, **right, Origin=url)[0]) >= 400:
        raise StackError(f"From the page itself, too, the answer to a write is HTTP {code}.")
    yield written(status(url, asked.write, **right, Origin=f"http://{ELSEWHERE}")[0], *preflight(url, asked.write), asked.guard)


def preflight(url: str, write: PageRequest) -> tuple[int, str]:
    """A browser's request before it sends another page's write: the status, and the origin that the answer allows."""
    asked = {"Access_Control_Request_Method": write.method, "Access_Control_Request_Headers": "authorization,content-type"}
    code, headers = status(url, PageRequest("OPTIONS", write.path), Origin=f"http://{ELSEWHERE}", **asked)
    return code, {key.lower(): value for key, value in headers.items()}.get("access-control-allow-origin", "")


def written(code: int, asked: int, allowed: str, guard: str = "") -> Found:
    """The measurement of a write from another page: its status, that of the preflight, the allowed origin, and what refuses it.

    Raises:
        StackError: there was no answer.
    """
    if not code:
        raise StackError(NO_ANSWER)
    parts = {"preflight": asked, "allowed origin": allowed}
    if code >= 400:
        return Found(FOREIGN_ORIGIN.id, code, f"refused {guard}".rstrip(), None if guard else True, parts)
    if asked < 300 and allowed in ("*", f"http://{ELSEWHERE}"):
        return Found(FOREIGN_ORIGIN.id, code, "done; a browser may send it, to a page that knows the password", None, parts)
    return Found(FOREIGN_ORIGIN.id, code, "done; a browser would not send it", True, parts)


def sockets(trial: Trial) -> Iterator[Found]:
    """Find the listening sockets, and how they answer."""
    request = product(trial.rig, trial.name).read
    driver = trial.rig.driver
    listening = list(native_sockets(driver.processes, request) if isinstance(driver, Native) else docker_sockets(trial, request))
    outside = [one for one in listening if one["from elsewhere"]]
    where = "reachable from this machine only" if not outside else f"{len(outside)} reachable from other machines"
    yield Found(LISTENING.id, len(listening), "; ".join([*places(listening), where]), not outside, {"sockets": listening})
    free = [one for one in listening if one["answer"] and one["answer"] not in REFUSED]
    services = ", ".join(f"{one['service']} ({one['answer']})" for one in free)
    yield Found(OPEN.id, len(free), f"{services}; {where}" if free else "", not outside if free else None)


def places(listening: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each service with the addresses and ports on which it listens."""
    found: dict[str, list[str]] = {}
    for one in listening:
        at = plain(ip_address(one["address"]))
        found.setdefault(one["service"], []).append(f"{at if at.version == 4 else f'[{at}]'}:{one['port']}")
    return [f"{service} {', '.join(each)}" for service, each in found.items()]


def native_sockets(processes: Processes, request: PageRequest) -> Iterator[dict[str, Any]]:
    """The sockets of the stack's processes on this machine, with their answers."""
    found: dict[tuple[str, int], str] = {}
    for record in processes.records():
        for process in processes.members(record):
            with suppress(psutil.NoSuchProcess):  # it has ended since
                for one in process.net_connections("tcp"):
                    if one.status == psutil.CONN_LISTEN:
                        found[one.laddr.ip, one.laddr.port] = record.service
    for (address, port), service in sorted(found.items(), key=lambda item: item[1]):
        at = ip_address(address)
        body = "" if request.body is None else json.dumps(request.body)
        answer = next(filter(None, (probe.answer(host, port, request.method, request.path, body) for host in reached(at))), "")
        yield {"service": service, "address": address, "port": port, "answer": answer, "from elsewhere": not plain(at).is_loopback}


def docker_sockets(trial: Trial, request: PageRequest) -> Iterator[dict[str, Any]]:
    """The sockets in the containers, each probed from inside; other machines can reach those that are published."""
    script = Path(probe.__file__).read_text(encoding="utf-8")
    for service in (one for one in trial.rig.driver.services() if one.orchestrator):
        inspected = json.loads(trial.rig.command(["docker", "inspect", service.container]))[0]
        published = {
            int(port.partition("/")[0]): [binding["HostIp"] for binding in bindings or ()]
            for port, bindings in inspected["NetworkSettings"]["Ports"].items()
        }
        table = trial.rig.command(
            ["docker", "exec", service.container, "sh", "-c", "cat /proc/net/tcp; cat /proc/net/tcp6 2>/dev/null || :"]
        )
        for at, port in listeners(table):
            body = "" if request.body is None else json.dumps(request.body)
            answer = ""
            for host in reached(at):
                argv = ["docker", "exec", "--interactive", service.container, "python", "-", host, str(port)]
                answer = answer or json.loads(trial.rig.command([*argv, request.method, request.path, body], script))
            hosts = published.get(port, [])
            outside = any(not ip_address(host or "0.0.0.0").is_loopback for host in hosts)
            yield {
                "service": service.name,
                "address": str(at),
                "port": port,
                "published": hosts,
                "answer": answer,
                "from elsewhere": outside,
            }


def listeners(table: str) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """The addresses and ports on which something listens, from the lines of /proc/net/tcp and tcp6, without the engine's own."""
    found = set()
    for line in table.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == LISTEN:
            address, _, port = words[1].partition(":")
            raw = bytes.fromhex(address)  # words of four bytes, each in reverse order
            turned = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
            found.add((ip_address(turned), int(port, 16)))
    return sorted((one for one in found if one[0] != DOCKERS), key=lambda one: one[1])


def plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that is mapped into an IPv6 address, or else the address itself."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def reached(address: IPv4Address | IPv6Address) -> tuple[str, ...]:
    """The hosts at which a socket on ``address`` may be reached: one on all IPv6 addresses also has IPv4, and there may be no IPv6."""
    if not address.is_unspecified:
        return (str(address),)
    return ("127.0.0.1",) if address.version == 4 else ("::1", "127.0.0.1")


def rights(trial: Trial) -> Iterator[Found]:
    """Find the users and rights of the containers."""
    if isinstance(trial.rig.driver, Native):
        yield Found(RIGHTS.id, why="there are no containers without Docker: the processes run as the account that starts them")
        return
    found: list[dict[str, Any]] = []
    for service in (one for one in trial.rig.driver.services() if one.orchestrator):
        text = trial.rig.command(["docker", "exec", service.container, "cat", "/proc/1/status"])
        written = trial.rig.command(["docker", "inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", service.container]).strip()
        found.append({"service": service.name, **allowed(text), "writable": written != "true"})
    root, capable, writable = (sum(one[key] for one in found) for key in ("root", "capable", "writable"))
    more = sum(one["root"] or one["capable"] or one["writable"] for one in found)
    verdict = f"of {len(found)}: {root} as root, {capable} with capabilities, {writable} with a writable root"
    yield Found(RIGHTS.id, more, verdict, not more, {"containers": found})


def allowed(text: str) -> dict[str, bool]:
    """Whether a process runs as root, and has or may get capabilities, from its /proc/PID/status."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    capable = any(int(lines[name], 16) for name in ("CapPrm", "CapEff", "CapBnd"))
    return {"root": "0" in lines["Uid"].split(), "capable": capable}


def roles(trial: Trial) -> Iterator[Found]:
    """Look for roles in the API's description."""
    asked = product(trial.rig, trial.name)
    names = asked.described()
    if not names:
        raise StackError("Its API has no description to search.")
    named = [name for name in names if "role" in name.lower()]
    if not named:
        without_roles = f"none of the {len(names)} paths or queries of its API in this setting is about roles"
        yield Found(ROLES.id, verdict="; ".join(filter(None, (without_roles, asked.roles))))
    else:
        yield Found(ROLES.id, why=f"its API has {', '.join(named)}, and this comparison cannot count roles there")


def sentence(report: Report) -> str:
    """The section's first sentence."""
    rows = (NO_PASSWORD, WRONG_PASSWORD)
    asked = " and ".join(f"{good} of {all_} {what}" for row, what in zip(rows, DENIED) for good, all_ in (report.judged(row),) if all_)
    guarded = [
        report.titles[name] for name in report.titles if any(good is None for _, good, _ in report.summary(NO_PASSWORD.id, name).verdicts)
    ]
    own = f" by themselves, and Switchyard's guard is in front of {listed(guarded)}" if guarded else ""
    return f"{asked or 'No request was made'}{own}; the sockets that need no password are {report.ranking(OPEN)}."


DENIED = ("refused a request without a password", "one with a wrong password")
SECTION = Section(
    "security",
    "Sign-in, and what listens",
    (
        Scenario("sign-in", sign_in, (NO_PASSWORD, WRONG_PASSWORD, WRONG_HOST, FOREIGN_ORIGIN), 5, "default", once=True),
        Scenario("sockets", sockets, (LISTENING, OPEN), 5, "default", once=True),
        Scenario("rights of the containers", rights, (RIGHTS,), 2, "default", once=True),
        Scenario("roles", roles, (ROLES,), 2, "default", once=True),
    ),
    sentence,
)
