"""``page.py HOST PORT INNER_PORT COMMAND...``: the sign-in before Dagster's page, which the open-source webserver does not have.

COMMAND, that webserver, is started on INNER_PORT of 127.0.0.1, and ends with this process or this with it. Whoever signs in as
``admin`` with DAGSTER_ADMIN_PASSWORD reaches it through PORT of HOST. So that no other page in the same browser does, under a name
that it has made point here or with the password that the browser remembers, a request for another host or from another page is refused.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

from aiohttp import ClientError, ClientSession, ClientTimeout, ClientWebSocketResponse, DummyCookieJar, TCPConnector, WSMsgType, web
from yarl import URL

from rundbt import api

HOSTS = ("localhost", "127.0.0.1", "::1", "dagster-webserver")  # the last is its name among the stack's containers
OPEN = "/server_info"  # the version, for health checks
GRAPHQL = "/graphql"
# What is of one connection and not of what it carries (RFC 9110, 7.6.1), and what is for this sign-in.
NOT_PASSED_ON = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "authorization", "host"}
LONGEST_LINE = 65536  # bytes of a header or an address: a browser sends the cookies of all other servers on localhost as well

# What the cookie holds that is given to who has signed in, until this process ends: not every browser sends a password with a
# WebSocket's request.
TOKEN = secrets.token_urlsafe(32)
NEW = "new"  # whether a request has brought the password, and no cookie yet
PORT = web.AppKey("port", int)
SESSION = web.AppKey("session", ClientSession)


def cookie(request: web.Request) -> str:
    """The cookie's name: a host has the same cookies for all ports, on which there may be other checkouts."""
    return f"dagster-{request.url.port}"


def asks_for_web_socket(request: web.Request) -> bool:
    """Whether the connection is to become a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those that are of a request or an answer itself; a name may stand there several times."""
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_PASSED_ON]


def own(request: web.Request) -> bool:
    """Whether a request is for this page's own name, and does not come from another page."""
    try:
        host, authority = request.url.host, request.url.authority
        origin = request.headers.get("Origin")
        if host not in HOSTS or (origin is not None and URL(origin).authority != authority):
            return False
    except ValueError:
        return False
    # Newer browsers say where a request comes from. A link on another page may be followed.
    link = request.method == "GET" and request.path != GRAPHQL and request.headers.get("Sec-Fetch-Mode") == "navigate"
    return link or request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def forgeable(request: web.Request) -> bool:
    """Whether any page could have a browser send this request, which Dagster would execute: it takes a mutation in an address, too."""
    if request.path != GRAPHQL or asks_for_web_socket(request):
        return False
    return request.content_type != "application/json" if request.method == "POST" else "query" in request.query


def guard(password: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that lets through who has signed in."""
    right = api.basic_auth(f"admin:{password}")["Authorization"]

    def equal(brought: str, wanted: str) -> bool:
        return hmac.compare_digest(brought.encode("utf-8", "surrogateescape"), wanted.encode())

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if not own(request) or forgeable(request):
            return web.Response(status=403, text="Dagster's page answers to localhost, and to itself.\n")
        if request.path == OPEN and request.method == "GET" and not request.body_exists:
            return await handler(request)
        if equal(request.cookies.get(cookie(request), ""), TOKEN):
            return await handler(request)
        if equal(request.headers.get("Authorization", ""), right):
            request[NEW] = True
            return await handler(request)
        needed = {"WWW-Authenticate": 'Basic realm="Dagster: admin, DAGSTER_ADMIN_PASSWORD in .env", charset="UTF-8"'}
        return web.Response(status=401, text="Sign in as admin, with DAGSTER_ADMIN_PASSWORD of .env.\n", headers=needed)

    return guarded


async def pass_on(request: web.Request) -> web.StreamResponse:
    """Hand a request to the webserver, and its answer back as it comes."""
    if not request.raw_path.startswith("/"):
        return web.Response(status=400)
    url = URL(f"http://127.0.0.1:{request.app[PORT]}{request.raw_path}", encoded=True)
    response = None
    try:
        if asks_for_web_socket(request):
            return await connect(request, url)
        headers = passed_on(request.headers)
        body = request.content if request.body_exists else None
        async with request.app[SESSION].request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed_on(answer.headers))
            response.headers["X-Frame-Options"] = "DENY"
            if NEW in request:
                response.set_cookie(cookie(request), TOKEN, httponly=True, samesite="Strict")
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response
    except ClientError as error:
        if response is None:
            return web.Response(status=502, text=f"Dagster's webserver does not answer: {error}\n")
        if request.transport:  # a part of the answer is on its way
            request.transport.close()
        return response


async def connect(request: web.Request, url: URL) -> web.WebSocketResponse:
    """Join a browser's WebSocket and one to the webserver, until either is closed."""
    asked = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if word.strip()]
    async with request.app[SESSION].ws_connect(url, protocols=asked, max_msg_size=0) as inner:
        outer = web.WebSocketResponse(protocols=[inner.protocol] if inner.protocol else (), max_msg_size=0)
        await outer.prepare(request)
        both = [asyncio.ensure_future(copy(outer, inner)), asyncio.ensure_future(copy(inner, outer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await outer.close()
        return outer


async def copy(source: web.WebSocketResponse | ClientWebSocketResponse, target: web.WebSocketResponse | ClientWebSocketResponse) -> None:
    """Send each message of the one to the other."""
    async for message in source:
        if message.type == WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await target.send_bytes(message.data)


async def serve(host: str, port: int, inner_port: int, command: list[str]) -> int:
    """Run the webserver and the sign-in before it; return the webserver's exit code."""
    asked = asyncio.Event()
    with suppress(NotImplementedError):  # on Windows, where all processes of a console are signalled
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)

    async def session(app: web.Application) -> AsyncIterator[None]:
        # All as it was sent: compressed or not, and however long it takes. A connection for each request: what one has sent too
        # much of, or too little, must not be taken for a part of the next.
        options = {"auto_decompress": False, "timeout": ClientTimeout(total=None), "cookie_jar": DummyCookieJar()}
        named = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        connector = TCPConnector(force_close=True, limit=0)
        async with ClientSession(connector=connector, skip_auto_headers=named, **options) as app[SESSION]:
            yield

    app = web.Application(middlewares=[guard(os.environ["DAGSTER_ADMIN_PASSWORD"])])
    app[PORT] = inner_port
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", pass_on)
    webserver = await asyncio.create_subprocess_exec(*command, "--host=127.0.0.1", f"--port={inner_port}")
    limits = {"max_line_size": LONGEST_LINE, "max_field_size": LONGEST_LINE}
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, auto_decompress=False, **limits)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        ended = asyncio.ensure_future(webserver.wait())
        await asyncio.wait([ended, asyncio.ensure_future(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            webserver.terminate()
        return await ended
    finally:
        if webserver.returncode is None:
            webserver.kill()
        await runner.cleanup()


if __name__ == "__main__":
    host, port, inner_port, *command = sys.argv[1:]
    sys.exit(asyncio.run(serve(host, int(port), int(inner_port), command)))
