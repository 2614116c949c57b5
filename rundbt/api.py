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

TRIES = 5  # of a request that may be repeated, when the server answers with a server error
RETRY_PAUSE_S = 2.0  # seconds between tries

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
        method: the HTTP method.
        url: the full address.
        body: what to send as JSON; None for no body.
        headers: in addition to the content type.
        timeout: seconds.
        tries: how often to send a repeatable request when the server answers with a server error (500 or above), or not in time: it may
            be overloaded, two of its processes may have run into a deadlock, or the machine may have slept.
        twice: whether the request is repeatable although it is neither a GET nor a PATCH. Those two always are: a PATCH sets a state,
            and has no further effect the second time.

    Raises:
        ApiError: no answer within ``timeout`` seconds, or an HTTP status of 400 or above.
    """
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    # The orchestrator is always nearby: requests to it must not go through a company proxy that was set for the build.
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
        except (OSError, http.client.HTTPException, ValueError) as error:  # no connection, half an answer, or an answer that is not JSON
            if not left or not isinstance(
                getattr(error, "reason", error), TimeoutError | ConnectionResetError | http.client.IncompleteRead
            ):
                raise ApiError(f"{method} {url}: {error}") from None
        time.sleep(RETRY_PAUSE_S)


def wait_for(probe: Callable[[], T | None], seconds: float, what: str, every: float = 0.5) -> T:
    """Call ``probe`` until it returns something other than None.

    Raises:
        ApiError: nothing came within ``seconds``; the message contains ``what``.
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
        ApiError: there was none within ``seconds``; the message contains ``what``.
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
    """End a re-run that has nothing to do with a ``finished`` event, without a ``started`` event before it.

    Args:
        message: the reason, for a person, such as "The last run, daily, succeeded."
    """
    emit("finished", state="success", seconds=0.0, message=message)
    return True


Asked = Callable[[], list[dict[str, Any]]]


def wait_for_end(runs: list[dict[str, Any]], active: Asked, seconds: float = 60) -> None:
    """Wait until none of ``runs`` is among those that ``active`` returns.

    Raises:
        ApiError: one is still there after ``seconds``; the message contains its job.
    """
    ids = {run["run_id"] for run in runs}
    deadline = time.monotonic() + seconds
    while left := [run for run in active() if run["run_id"] in ids]:
        if time.monotonic() > deadline:
            names = ", ".join(f"{run['job']} ({run['state']}: {run['url']})" for run in left)
            raise ApiError(f"canceled, but still active after {seconds:.0f} s: {names}")
        time.sleep(0.5)


def main(run: Callable[[str, Any], bool], rerun: Callable[[], bool], active: Asked, cancel: Asked) -> None:
    """Carry out the command line and end the process with the protocol's exit code.

    Args:
        run: triggers and follows the job with the `rundbt.jobs.Options`, emits its events, and returns whether it succeeded. The
            options follow the job's name on the command line, as JSON.
        rerun: for ``--failed``: runs what failed and what was skipped in the newest run, in the same way; see `nothing_failed`.
        active: for ``--active``: the runs in progress, each with ``run_id``, ``job``, ``url``, ``state``, and for `invoke status` the host
            it runs on (``worker``) and when it started (``since``, in ISO 8601).
        cancel: for ``--cancel``: cancels them, waits until they have ended, and returns them as they were before.
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
    """The options of a run; ends this process with `UNKNOWN_JOB` when there is no such job, or it does not take these options."""
    from rundbt import jobs  # here, because a health check, which also uses this module, never needs it

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
