"""``python healthcheck.py code|webserver|daemon``: exit 0 when that service is well, and else 1 with the reason."""

from __future__ import annotations

import os
import socket
import sys

from switchyard import api
from webserver import ask


def code() -> None:
    """The code server opens its port after it has loaded the definitions, or has found out why it cannot."""
    socket.create_connection(("localhost", int(os.environ["DAGSTER_CODE_PORT"])), timeout=5).close()


def webserver() -> None:
    """The page is served, and it has heard from the code server."""
    api.request("GET", os.environ["DAGSTER_URL"] + "/server_info", timeout=5)
    location = ask(
        "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {... on PythonError {className}}}}}}",
        timeout=5,
    )["workspaceOrError"]["locationEntries"][0]["locationOrLoadError"]
    # A project that dbt rejects is shown as an error on the page, and must not keep the page from coming up.
    if location is None or location.get("className") == "DagsterUserCodeUnreachableError":
        sys.exit("the code location is not loaded yet")


def daemon() -> None:
    """The daemon's threads have reported lately."""
    query = "{instance {daemonHealth {allDaemonStatuses {daemonType required healthy}}}}"
    statuses = ask(query, timeout=5)["instance"]["daemonHealth"]["allDaemonStatuses"]
    if ill := [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]:
        sys.exit(f"not reporting: {', '.join(ill)}")


if __name__ == "__main__":
    try:
        {"code": code, "webserver": webserver, "daemon": daemon}[sys.argv[1]]()
    except (api.ApiError, OSError) as error:
        sys.exit(str(error))
