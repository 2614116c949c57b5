"""``python healthcheck.py code|webserver|daemon``: exit 0 when that service is healthy, otherwise 1 with the reason."""

from __future__ import annotations

import os
import socket
import sys
import time

from rundbt import api
from webserver import ask, reload_code, unreachable

RECHECK_S = 3  # seconds in which the webserver notices that the code server is up: it checks every second


def code() -> None:
    """The code server opens its port after it has loaded the definitions, or failed to load them."""
    socket.create_connection((os.environ["DAGSTER_CODE_HOST"], int(os.environ["DAGSTER_CODE_PORT"])), timeout=5).close()


def webserver() -> None:
    """The page is served, and the webserver has reached the code server."""
    api.request("GET", os.environ["DAGSTER_URL"] + "/server_info", timeout=5)
    found = location()
    if found and unreachable(found):
        code()
        time.sleep(RECHECK_S)
        if unreachable(location() or {}):
            reload_code()
            found = location()
    # If dbt rejects the project, the page shows that error; it must not keep the page from starting.
    if found is None or unreachable(found):
        sys.exit("the code location is not loaded yet")


def location() -> dict[str, str] | None:
    """The code location: with its ``className`` when it is an error, None while it is being loaded."""
    query = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {... on PythonError {className}}}}}}"
    return ask(query, timeout=5, tries=1)["workspaceOrError"]["locationEntries"][0]["locationOrLoadError"]


def daemon() -> None:
    """The daemon's threads have reported recently."""
    query = "{instance {daemonHealth {allDaemonStatuses {daemonType required healthy}}}}"
    statuses = ask(query, timeout=5, tries=1)["instance"]["daemonHealth"]["allDaemonStatuses"]
    if ill := [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]:
        sys.exit(f"not reporting: {', '.join(ill)}")


if __name__ == "__main__":
    try:
        {"code": code, "webserver": webserver, "daemon": daemon}[sys.argv[1]]()
    except (api.ApiError, OSError) as error:
        sys.exit(str(error))
