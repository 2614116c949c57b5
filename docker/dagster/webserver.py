"""A small client for Dagster's GraphQL API. Standard library only, so that it starts in a tenth of a second."""

from __future__ import annotations

import os
from typing import Any

from rundbt import api

LOCATION = "dbt"
WORKER = "switchyard/worker"  # the tag of a run with the host name of the worker that it is on
RELOAD = "mutation ($name: String!) {reloadRepositoryLocation(repositoryLocationName: $name) {__typename}}"


def ask(query: str, timeout: float = 120, tries: int = api.TRIES, **variables: Any) -> dict[str, Any]:
    """The ``data`` of the answer to one query.

    Raises:
        rundbt.api.ApiError: the webserver at DAGSTER_URL did not answer, or answered with an error.
    """
    url = os.environ["DAGSTER_URL"] + "/graphql"
    sign_in = api.basic_auth(f"admin:{os.environ['DAGSTER_ADMIN_PASSWORD']}")
    reads = not query.lstrip().startswith("mutation")
    answer = api.request("POST", url, {"query": query, "variables": variables}, sign_in, timeout, tries, reads)
    if answer.get("errors"):
        raise api.ApiError(f"POST {url}: {answer['errors'][0]['message']}")
    return answer["data"]


def unreachable(location: dict[str, Any]) -> bool:
    """Whether the code server does not answer, by the error's ``className`` in ``location``."""
    return location.get("className") == "DagsterUserCodeUnreachableError"


def reload_code() -> None:
    """Have the code server load the definitions in a new inner server. It does not replace a killed one by itself."""
    ask(RELOAD, name=LOCATION)
