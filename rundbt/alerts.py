"""Sends one message for each failed run to the webhook in ALERT_WEBHOOK, in the format of Slack's incoming webhooks."""

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
SEND_TIMEOUT_S = 10  # seconds, for everything together
NODES = 20  # the most that a message lists
LINE = 300  # the most characters of an error
HEADING = re.compile(r"[\w ]+ Error in .*\)$")  # dbt's first line, which repeats the node's name; the error follows
ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # as Slack requires

_hidden = ""


def wanted() -> bool:
    """Whether there is an address to send to."""
    return bool(_address())


def hide() -> None:
    """Remove the address from the environment of a process that runs dbt in itself: a project can read all of dbt's variables."""
    global _hidden
    _hidden = os.environ.pop(VARIABLE, "") or _hidden


def _address() -> str:
    return os.environ.get(VARIABLE, "") or _hidden


def message(job: str, product: str, url: str, failed: list[dict[str, Any]], why: str = "") -> dict[str, str]:
    """The content to send.

    Args:
        job: the name of the job.
        product: the orchestrator's title.
        url: the address of the run's page.
        failed: the records of the nodes that failed, see `rundbt.results`.
        why: why the run failed, used when no node failed.
    """
    lines = [f"{record['kind']} {record['name']}: {first_line(record['message'] or record['status'])}" for record in failed[:NODES]]
    if len(failed) > NODES:
        lines.append(f"and {len(failed) - NODES} more")
    if why and not lines:
        lines = [first_line(why)]
    text = "\n".join([f"{job} failed on {product}", *lines, url])
    return {"text": re.sub("[&<>]", lambda match: ESCAPED[match[0]], text)}


def first_line(text: str) -> str:
    """The first line that describes the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return (lines[1] if len(lines) > 1 and HEADING.fullmatch(lines[0]) else lines[0])[:LINE]


def send(content: dict[str, str]) -> None:
    """Send a message and log the outcome, without the address. Never raises."""
    outcomes: list[str] = []

    def post() -> None:
        try:
            data = json.dumps(content).encode()
            request = urllib.request.Request(_address(), data, {"Content-Type": "application/json"}, method="POST")
            # The environment's proxies, not the system's: looking these up on macOS can crash a forked process, such as Airflow's.
            proxies = urllib.request.ProxyHandler(urllib.request.getproxies_environment())
            with urllib.request.build_opener(proxies).open(request, timeout=SEND_TIMEOUT_S) as answer:
                outcomes.append(f"sent, HTTP {answer.status}")
        except urllib.error.HTTPError as error:
            outcomes.append(f"refused, HTTP {error.code}")
        except Exception as error:  # logged by type only: some have the address in their text
            cause = getattr(error, "reason", None) or error
            if not isinstance(cause, TimeoutError):  # reported below, like the end of the wait
                outcomes.append(f"not sent, {type(cause).__name__}")

    if wanted():
        # A socket's timeout applies to each of its operations, and a name look-up has none.
        thread = threading.Thread(target=post, daemon=True)
        thread.start()
        thread.join(SEND_TIMEOUT_S)
        print(f"alert: {outcomes[0] if outcomes else f'no answer in {SEND_TIMEOUT_S} seconds'}", file=sys.stderr, flush=True)
