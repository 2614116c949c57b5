"""One message for each run that fails, to the webhook that ALERT_WEBHOOK names, in the form of Slack's incoming webhooks."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

VARIABLE = "ALERT_WEBHOOK"
SEND_TIMEOUT_S = 10  # seconds, all in all
NODES = 20  # that a message names
LINE = 300  # characters of an error
HEADING = re.compile(r"[\w ]+ Error in .*\)$")  # dbt's first line, which names the node once more; what is wrong follows
ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # in Slack's form

_hidden = ""


def wanted() -> bool:
    """Whether there is an address to send to."""
    return bool(_address())


def hide() -> None:
    """Take the address out of the environment, for a process that runs dbt in itself: a project can read all variables that dbt has."""
    global _hidden
    _hidden = os.environ.pop(VARIABLE, "") or _hidden


def _address() -> str:
    return os.environ.get(VARIABLE, "") or _hidden


def message(job: str, product: str, url: str, failed: list[dict[str, Any]], why: str = "") -> dict[str, str]:
    """What is sent.

    Args:
        job: the name of the job.
        product: the orchestrator's title.
        url: of the run's page.
        failed: the records of the nodes that failed, see `rundbt.results`.
        why: why the run failed, where no node did.
    """
    lines = [f"{record['kind']} {record['name']}: {first_line(record['message'] or record['status'])}" for record in failed[:NODES]]
    if len(failed) > NODES:
        lines.append(f"and {len(failed) - NODES} more")
    if why and not lines:
        lines = [first_line(why)]
    text = "\n".join([f"{job} failed on {product}", *lines, url])
    return {"text": re.sub("[&<>]", lambda match: ESCAPED[match[0]], text)}


def first_line(text: str) -> str:
    """The first line that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return (lines[1] if len(lines) > 1 and HEADING.fullmatch(lines[0]) else lines[0])[:LINE]


def send(content: dict[str, str]) -> None:
    """Send a message, and write into this process's log how that went, without the address; whatever happens, nothing is raised."""
    outcomes: list[str] = []

    def post() -> None:
        try:
            data = json.dumps(content).encode()
            request = urllib.request.Request(_address(), data, {"Content-Type": "application/json"}, method="POST")
            # The environment's proxies, but not the system's: on macOS, to look for these can end a forked process, as Airflow's is.
            proxies = urllib.request.ProxyHandler(urllib.request.getproxies_environment())
            with urllib.request.build_opener(proxies).open(request, timeout=SEND_TIMEOUT_S) as answer:
                outcomes.append(f"sent, HTTP {answer.status}")
        except urllib.error.HTTPError as error:
            outcomes.append(f"refused, HTTP {error.code}")
        except Exception as error:  # some have the address in their text
            cause = getattr(error, "reason", None) or error
            if not isinstance(cause, TimeoutError):  # which ends as the wait below does, whichever is first
                outcomes.append(f"not sent, {type(cause).__name__}")

    if wanted():
        # The time-out of a socket is one for each of its steps, and a look-up of a name has none.
        thread = threading.Thread(target=post, daemon=True)
        thread.start()
        thread.join(SEND_TIMEOUT_S)
        print(f"alert: {outcomes[0] if outcomes else f'no answer in {SEND_TIMEOUT_S} seconds'}", file=sys.stderr, flush=True)
