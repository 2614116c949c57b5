"""Keeps requests between the containers away from a proxy; in the images, Python imports this file at each start.

Docker's client passes on the proxies of ``~/.docker/config.json`` to each container, and the list of exceptions there knows nothing of
the stack. A value in the compose files would replace that list, and would not reach a command of `docker exec` with another one.
"""

import os
from collections.abc import Mapping

# The hosts to which services send HTTP and gRPC requests. PostgreSQL's and Redis's clients use no proxy.
NEIGHBOURS = ("localhost", "127.0.0.1", "airflow-api", "dagster-code", "dagster-webserver", "prefect-server")


def exceptions(environ: Mapping[str, str]) -> dict[str, str]:
    """Both spellings of NO_PROXY with `NEIGHBOURS` in addition to what it has; nothing if there is no proxy."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    if not any(environ.get(key) or environ.get(key.upper()) for key in proxies):
        return {}
    found = {}
    for key, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        value = environ.get(key) or environ.get(other) or ""
        names = [name.strip() for name in value.split(",") if name.strip()]
        if "*" not in names:  # alone, it is every host; in a list, some clients take it for a name
            found[key] = ",".join([*names, *(name for name in NEIGHBOURS if name not in names)])
    return found


if __name__ == "sitecustomize":
    os.environ.update(exceptions(os.environ))
