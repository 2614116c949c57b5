"""A small JSON-over-HTTP client, and the line protocol in which ``run_job.py`` reports to the task runner."""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

TRIES = 5  # of what may be sent twice, where the server answers with its own error
RETRY_PAUSE_S = 2.0  # seconds between them

SUCCESS, FAILED, UNKNOWN_JOB, UNREACHABLE = 0, 1, 2, 3


class ApiError(Exception):
    """The orchestrator's API could not be reached, or answered with an error.

    Attributes:
        status: the HTTP status, or None when there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def basic_auth(credentials: str) -> dict[str, str]:
    """The header for HTTP basic authentication with ``user:password``."""
    return {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


def request(
    method: str, url: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60, tries: int = 1, twice: bool = False
) -> Any:
    """Send one JSON request and return the decoded answer (None for an empty one).

    Args:
        method: of HTTP.
        url: the whole address.
        body: what is sent as JSON; None for nothing.
        headers: besides the content's type.
        timeout: seconds.
        tries: how often what may be sent twice is sent, where the server answers with its own error (500 and above), or not in time: it
            may be short of time just now, two of its processes may have met a deadlock, or the machine has slept.
        twice: whether it may, though it is neither a GET nor a PATCH, which set a state and have no other effect the second time.

    Raises:
        ApiError: no answer within ``timeout`` seconds, or an HTTP status of 400 and above.
    """
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    # The orchestrator is always a neighbour: a company proxy set for the build must not be asked for it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    left = tries if twice or method in ("GET", "PATCH") else 1
    while True:
        left -= 1
        try:
            with opener.open(message, timeout=timeout) as answer:
                text = answer.read()
            return json.loads(text) if text.strip() else None
        except urllib.error.HTTPError as error:
            if error.code < 500 or not left:
                detail = error.read().decode(errors="replace")[:500]
                raise ApiError(f"{method} {url}: HTTP {error.code}: {detail}", error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # no connection, half an answer, or one that is no JSON
            if not left or not isinstance(
                getattr(error, "reason", error), TimeoutError | ConnectionResetError | http.client.IncompleteRead
            ):
                raise ApiError(f"{method} {url}: {error}") from None
        time.sleep(RETRY_PAUSE_S)


def wait_for(probe: Callable[[], T | None], seconds: float, what: str, every: float = 0.5) -> T:
    """Call ``probe`` until it returns something other than None.

    Raises:
        ApiError: nothing came within ``seconds``; the message names ``what`` was awaited.
    """
    deadline = time.monotonic() + seconds
    while (found := probe()) is None:
        if time.monotonic() > deadline:
            raise ApiError(f"gave up after {seconds:.0f} s waiting for {what}")
        time.sleep(every)
    return found


def wait_for_answer(url: str, seconds: float, what: str) -> None:
    """Wait until a GET of ``url`` is answered without an error.

    Raises:
        ApiError: it was not within ``seconds``; the message names ``what`` was awaited.
    """

    def answers() -> bool | None:
        try:
            request("GET", url, timeout=5)
        except ApiError:
            return None
        return True

    wait_for(answers, seconds, what, every=0.2)


def emit(event: str, **fields: Any) -> None:
    """Print one event of the run as a line of JSON."""
    print(json.dumps({"event": event, **fields}), flush=True)


def nothing_failed(message: str) -> bool:
    """End a re-run that has nothing to do, with a ``finished`` event that no ``started`` came before.

    Args:
        message: why, for a person: such as "The last run, daily, succeeded."
    """
    emit("finished", state="success", seconds=0.0, message=message)
    return True


Asked = Callable[[], list[dict[str, Any]]]


def wait_for_end(runs: list[dict[str, Any]], active: Asked, seconds: float = 60) -> None:
    """Wait until none of ``runs`` is among those that ``active`` returns.

    Raises:
        ApiError: one is still there after ``seconds``; the message has its name.
    """
    ids = {run["run_id"] for run in runs}
    deadline = time.monotonic() + seconds
    while left := [run for run in active() if run["run_id"] in ids]:
        if time.monotonic() > deadline:
            names = ", ".join(f"{run['job']} ({run['state']}: {run['url']})" for run in left)
            raise ApiError(f"canceled, but still active after {seconds:.0f} s: {names}")
        time.sleep(0.5)


def main(run: Callable[[str, Any], bool], rerun: Callable[[], bool], active: Asked, cancel: Asked) -> None:
    """Do what the command line asks for and end the process with the protocol's exit code.

    Args:
        run: triggers and follows the job with the `rundbt.jobs.Options`, emits its events, and returns whether it succeeded. They
            stand after the job's name, as JSON.
        rerun: for ``--failed``: runs what failed and what was skipped in the newest run, in the same way; see `nothing_failed`.
        active: for ``--active``: the runs in progress, each with ``run_id``, ``job``, ``url``, ``state``, and for `invoke status` the host
            ``worker`` that it is on and ``since`` when, in ISO 8601.
        cancel: for ``--cancel``: cancels them, waits until they have ended, and returns them as they were.
    """
    name, *given = sys.argv[1:] or [""]
    asked = {"--active": active, "--cancel": cancel}.get(name)
    try:
        if asked is None:
            good = rerun() if name == "--failed" else run(name, _options(name, given))
            sys.exit(SUCCESS if good else FAILED)
        for found in asked():
            emit("active", **found)
    except ApiError as error:
        print(error, file=sys.stderr)
        sys.exit(UNREACHABLE)


def _options(name: str, given: list[str]) -> Any:
    """The options of a run; ends this process with `UNKNOWN_JOB` where there is no such job, or it cannot have them."""
    from rundbt import jobs  # which a health check, of this module's other users, never needs

    try:
        known = jobs.load()
        if name in known:
            options = jobs.Options(**json.loads(given[0])) if given else jobs.Options()
            known[name].asked(options)
            return options
        print(f"unknown job {name!r}; the jobs are {', '.join(known)}", file=sys.stderr)
    except jobs.JobsError as error:
        print(error, file=sys.stderr)
    sys.exit(UNKNOWN_JOB)
