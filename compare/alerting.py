"""Alerting: from a failure to a message at a webhook."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.rig import Rig
from compare.failures import NO_SQL, mentions
from compare.model import Found, Row, Scenario, Section
from compare.products.product import product
from compare.report import Report
from compare.start import lines
from compare.trial import Trial, afterwards, known
from switchyard.errors import StackError
from switchyard.runtimes.native.runtime import Native

WEBHOOK = Row(
    "webhook",
    "From a failure to a webhook",
    "A line that is not SQL is added to a model. From the moment when PostgreSQL refuses its statement to the message at a server on this"
    " machine, with no setting except `ALERT_WEBHOOK`. The message has to contain the model's name, and arrive once.",
    "s",
)
LINES = Row(
    "alert_lines",
    "Lines for alerts",
    "Non-empty lines in docker/<name>/alert.py, which uses the product's own means for this. The module that writes and sends the message"
    " is the same for all, and not counted.",
    better=None,
)
SECOND_S = 30  # seconds after a message in which a second one for the same failure would arrive
MESSAGE_TIMEOUT_S = 180  # seconds for the message


class Receiver:
    """A webhook on this machine, while the block runs.

    Attributes:
        url: its address.
        messages: epoch seconds and content of each message.
        hang: whether it accepts messages and never answers.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.messages: list[tuple[float, Any]] = []
        self.hang = False
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.messages.append((time.time(), content))
                if receiver.hang:
                    receiver._over.wait()
                else:
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/hook-nobody-may-know"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def alerting(rig: Rig, name: str, url: str) -> Iterator[None]:
    """The orchestrator, with ``url`` as the address for its alerts."""
    before = rig.env.get("ALERT_WEBHOOK", "")

    def again(address: str) -> None:
        rig.env["ALERT_WEBHOOK"] = address
        rig.invoke("up", "--orch", name)

    with afterwards(lambda: again(before)):
        again(url)
        yield


def host(rig: Rig) -> str:
    """The address at which the services reach this machine."""
    if isinstance(rig.driver, Native):
        return "127.0.0.1"
    container = next(one.container for one in rig.driver.services() if one.orchestrator)
    networks = json.loads(rig.command(["docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", container]))
    return str(next(iter(networks.values()))["Gateway"])


def webhook(trial: Trial) -> Iterator[Found]:
    """Break a model, and wait for the message."""
    trial.require_nodes()
    victim = trial.graph.middle(trial.green)
    address = host(trial.rig)
    try:
        receiver = Receiver(address)
    except OSError:
        raise StackError(f"{address}, at which the containers reach this machine, is not one of this machine's own addresses.") from None
    with receiver, alerting(trial.rig, trial.name, receiver.url):
        shown, deadline = product(trial.rig, trial.name), time.monotonic() + MESSAGE_TIMEOUT_S
        while not shown.alerts():
            if time.monotonic() > deadline:
                raise StackError(f"Nothing looks for failures {MESSAGE_TIMEOUT_S} s after the start.")
            time.sleep(1)
        with trial.edited(victim.path, NO_SQL):
            run = trial.run()
            spans = trial.spans(run.began, run.ended)
            # A unit test of the model runs before it, and fails with the same error.
            refused = min(span.ended for span in known(spans, victim.id, *trial.graph.before(victim.id)))
            deadline = time.monotonic() + MESSAGE_TIMEOUT_S
            while not receiver.messages and time.monotonic() < deadline:
                time.sleep(0.1)
        again = trial.run()
        if receiver.messages:  # a second one would have arrived by then
            time.sleep(max(0.0, receiver.messages[0][0] + SECOND_S - time.time()))
        if again.code:
            raise StackError(f"The run after the fix ended with exit code {again.code}.")
        yield judged(receiver.messages, refused, victim.name, shown.alert)


def judged(messages: list[tuple[float, Any]], refused: float, model: str, means: str) -> Found:
    """The measurement, from the messages that arrived after the statement of ``model`` was ``refused``."""
    if not messages:
        return Found(WEBHOOK.id, verdict=f"no message within {MESSAGE_TIMEOUT_S} s", good=False)
    at, content = messages[0]
    named = mentions(content["text"], model)
    verdict = f"{'names the model' if named else 'without its name'}, {'once' if len(messages) == 1 else f'{len(messages)} times'}"
    return Found(WEBHOOK.id, at - refused, f"{verdict}; {means}", named and len(messages) == 1, {"text": content["text"]})


def counted(trial: Trial) -> Iterator[Found]:
    """Count the integration's lines for alerts."""
    file = trial.rig.folder / "docker" / trial.name / "alert.py"
    yield Found(LINES.id, lines(file))


def sentence(report: Report) -> str:
    """The section's first sentence."""
    if not report.measured(WEBHOOK.id):
        return f"Lines of code for alerts: {report.ranking(LINES)}."
    return f"From a failure to the message at a webhook it takes {report.ranking(WEBHOOK)}."


SECTION = Section(
    "alerting",
    "Alerting",
    (Scenario("lines for alerts", counted, (LINES,), 1, "default", once=True), Scenario("webhook", webhook, (WEBHOOK,), 150, "full")),
    sentence,
)
