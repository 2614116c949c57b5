"""`invoke docs`: the project's dbt docs, generated where the orchestrator runs dbt, and served on this machine only."""

from __future__ import annotations

import http.server
from contextlib import suppress
from functools import partial

from switchyard import console
from switchyard.errors import NothingActive, PortInUse, RunFailed
from switchyard.runtimes.runtime import WholeRuntime

PAGE = "static_index.html"  # all of the docs in one file


def serve(runtime: WholeRuntime, port: int) -> None:
    """Make the docs, and serve them on 127.0.0.1 until Ctrl-C.

    Args:
        runtime: what the orchestrator runs on.
        port: the TCP port; 0 takes any free one.

    Raises:
        NothingActive: no orchestrator is up.
        RunFailed: dbt cannot generate them; its messages were printed.
        PortInUse: another program has the port, or this account may not use it.
    """
    active = runtime.active()
    if active is None:
        raise NothingActive("No orchestrator is active, so there is no dbt to make the docs.", "", "invoke up")
    orchestrator = runtime.orchestrators[active]
    if runtime.dbt(orchestrator, ["--quiet", "docs", "generate", "--static"]):
        raise RunFailed("dbt did not make the docs.", "", "invoke dbt docs generate --static")
    if runtime.runner.dry:
        return
    folder = runtime.settings.root / ".stack" / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(runtime.typed_file(orchestrator, PAGE), encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing for a request."""

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise PortInUse(f"Port {port} cannot be used.", error.strerror or str(error), "invoke docs   (takes any free port)") from None
    with server:
        console.ok(f"dbt docs on http://localhost:{server.server_address[1]}/ until Ctrl-C")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
