"""``page.py HOST PORT INNER_PORT COMMAND...``: the sign-in for Dagster's page, which the open-source webserver does not have.

COMMAND, the webserver, is started on 127.0.0.1:INNER_PORT. If either process ends, so does the other. A user who signs in as
``admin`` with DAGSTER_ADMIN_PASSWORD reaches it at HOST:PORT. Requests for another host or from another page are refused: otherwise
another page in the same browser could use the password that the browser remembers, or a host name that it has pointed here.
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
# Headers that concern one connection only (RFC 9110, 7.6.1), and those for this sign-in.
NOT_PASSED_ON = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "authorization", "host"}
LONGEST_LINE = 65536  # bytes of a header or an address: a browser sends the cookies of all other servers on localhost as well

# The value of the cookie after sign-in, valid until this process ends. It is needed because not every browser sends a password when it
# opens a WebSocket.
TOKEN = secrets.token_urlsafe(32)
NEW = "new"  # whether a request came with the password, and without the cookie
PORT = web.AppKey("port", int)
SESSION = web.AppKey("session", ClientSession)


def cookie(request: web.Request) -> str:
    """The cookie's name. It has the port, because a host's ports share cookies, and other checkouts may use other ports."""
    return f"dagster-{request.url.port}"


def asks_for_web_socket(request: web.Request) -> bool:
    """Whether the connection is to become a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of a request or an answer that are passed on; a name may occur several times."""
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_PASSED_ON]


def own(request: web.Request) -> bool:
    """Whether a request is for this page's own host name, and does not come from another page."""
    try:
        host, authority = request.url.host, request.url.authority
        origin = request.headers.get("Origin")
        if host not in HOSTS or (origin is not None and URL(origin).authority != authority):
            return False
    except ValueError:
        return False
    # Newer browsers send where a request comes from. A link from another page is allowed.
    link = request.method == "GET" and request.path != GRAPHQL and request.headers.get("Sec-Fetch-Mode") == "navigate"
    return link or request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def forgeable(request: web.Request) -> bool:
    """Whether any page could make a browser send this request, and Dagster would execute it: it even accepts a mutation in a URL."""
    if request.path != GRAPHQL or asks_for_web_socket(request):
        return False
    return request.content_type != "application/json" if request.method == "POST" else "query" in request.query


def guard(password: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that lets signed-in users through."""
    right = api.basic_auth(f"admin:{password}")["Authorization"]

    def equal(brought: str, wanted: str) -> bool:
        return hmac.compare_digest(brought.encode("utf-8", "surrogateescape"), wanted.encode())

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if not own(request) or forgeable(request):
            return web.Response(status=403, text="Dagster's page accepts requests for localhost only, and none from other pages.\n")
        if request.path == OPEN and request.method == "GET" and not request.body_exists:
            return await handler(request)
        if equal(request.cookies.get(cookie(request), ""), TOKEN):
            return await handler(request)
        if equal(request.headers.get("Authorization", ""), right):
            request[NEW] = True
            return await handler(request)
        needed = {"WWW-Authenticate": 'Basic realm="Dagster: admin, DAGSTER_ADMIN_PASSWORD in .env", charset="UTF-8"'}
        return web.Response(status=401, text="Sign in as admin, with DAGSTER_ADMIN_PASSWORD from .env.\n", headers=needed)

    return guarded


async def pass_on(request: web.Request) -> web.StreamResponse:
    """Pass a request on to the webserver, and stream its answer back."""
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
        if request.transport:  # a part of the answer has been sent
            request.transport.close()
        return response


async def connect(request: web.Request, url: URL) -> web.WebSocketResponse:
    """Connect a browser's WebSocket to one of the webserver, until either is closed."""
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
    """Send each message from ``source`` to ``target``."""
    async for message in source:
        if message.type == WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await target.send_bytes(message.data)


async def serve(host: str, port: int, inner_port: int, command: list[str]) -> int:
    """Run the webserver and the sign-in in front of it; return the webserver's exit code."""
    asked = asyncio.Event()
    with suppress(NotImplementedError):  # on Windows, where all processes of a console get the signal
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)

    async def session(app: web.Application) -> AsyncIterator[None]:
        # Pass everything on unchanged, compressed or not, without a timeout. Use a connection for each request, so that a body which is
        # too long or too short cannot be taken for a part of the next request.
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
