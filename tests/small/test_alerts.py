"""One message for each failed run, without Docker: it has what failed, and is sent by the product's own mechanism."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from compare.alerting import Receiver

from .. import runs
from ..interruptions import ended, typed
from ..stacks import command_line, files_below, mostly_long, wait_until
from .test_flow_runs import PrefectPage

BROKEN_MODEL = "select no_such_column from {{ ref('first') }}\n"
SEEN = "{{ config(materialized='view') }}\nselect '{{ env_var('ALERT_WEBHOOK', '') }}'::text as found\n"
OLD = """\
sources:
  - name: olden
    schema: "{{ target.schema }}"
    loaded_at_field: "timestamp '2020-01-01'"
    freshness: {error_after: {count: 1, period: day}}
    tables: [{name: times, identifier: last}]
"""


NAMES = ("dagster", "airflow", "prefect")


def logged(stack) -> str:
    """The text of all logs of the services; Airflow's DAG processor has a separate log for each DAG file."""
    base = stack.folder / ".stack" / "native"
    files = [path for folder in ("logs", "data") for path in files_below(base / folder) if path.suffix == ".log"]
    assert files
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


@pytest.fixture(scope="module")
def name(request) -> str:
    """An orchestrator; its tests run one after the other."""
    return request.param


@pytest.fixture(scope="module")
def receiver(stack, reference, name) -> Iterator[Receiver]:
    """A local webhook to which the orchestrator sends."""
    stack.on(name)
    with Receiver() as receiver:
        try:
            stack.invoke("up", "--orch", name, ALERT_WEBHOOK=receiver.url)
            yield receiver
        finally:
            stack.invoke("up", "--orch", name)


@pytest.fixture(autouse=True)
def no_messages(receiver) -> None:
    """Delete the messages of a failed test before the next test."""
    receiver.messages.clear()


@pytest.mark.parametrize("name", mostly_long(NAMES, "dagster"), indirect=True, scope="module")
def test_a_run_that_fails_sends_one_message(stack, receiver, name) -> None:
    with stack.edited("models/last.sql", BROKEN_MODEL):
        output = stack.invoke("run", code=1)
        wait_until(lambda: bool(receiver.messages), 60)
    stack.invoke("run")
    ((_, message),) = receiver.messages
    assert message.keys() == {"text"}
    head, node, url = message["text"].splitlines()
    assert head == f"daily failed on {name.title()}"
    assert re.fullmatch('model last: .*column "no_such_column" does not exist.*', node)
    assert url in output.stdout + output.stderr


@pytest.mark.parametrize("name", mostly_long(NAMES), indirect=True, scope="module")
def test_freshness_that_fails_sends_one_message(stack, receiver) -> None:
    with stack.edited("models/olden.yml", OLD):
        stack.invoke("run", "--job", "freshness", code=1)
        wait_until(lambda: bool(receiver.messages), 60)
    stack.invoke("run")
    ((_, message),) = receiver.messages
    assert message["text"].startswith("freshness failed on ")
    assert "\nsource olden.times: " in message["text"]


@pytest.mark.parametrize("name", mostly_long(NAMES), indirect=True, scope="module")
def test_a_cancelled_run_sends_nothing(stack, receiver) -> None:
    with stack.edited("models/slow.sql", runs.SLOW_MODEL):
        command = typed(stack, "run")
        wait_until(lambda: command.poll() is not None or stack.ask(runs.SLOW_QUERIES) == "1", 120)
        stack.invoke("run", "--cancel")
        assert ended(command)[0] != 0
    with stack.edited("models/last.sql", BROKEN_MODEL):
        stack.invoke("run", code=1)  # its message would come after one for the cancelled run
        wait_until(lambda: bool(receiver.messages), 60)
    stack.invoke("run")
    ((_, message),) = receiver.messages
    assert "model last: " in message["text"]


@pytest.mark.parametrize("name", mostly_long(NAMES), indirect=True, scope="module")
def test_a_webhook_that_never_answers_does_not_affect_a_run(stack, receiver, reference) -> None:
    unanswered = "alert: no answer in 10 seconds"
    before = logged(stack).count(unanswered)
    receiver.hang = True
    try:
        with stack.edited("models/last.sql", BROKEN_MODEL):
            output = stack.invoke("run", code=1)
            assert "no_such_column" in output.stdout + output.stderr
            wait_until(lambda: bool(receiver.messages), 60)
        stack.invoke("run")
        assert stack.hashes() == reference
        wait_until(lambda: logged(stack).count(unanswered) > before, 30)
    finally:
        receiver.hang = False


@pytest.mark.parametrize("name", mostly_long(NAMES, "dagster"), indirect=True, scope="module")
def test_the_webhook_address_is_shown_nowhere(stack, receiver, name) -> None:
    with stack.edited("models/seen.sql", SEEN):
        stack.invoke("run", "--select", "seen")
        assert stack.sql("select found from seen") == ""
    stack.invoke("sql", "drop view seen")
    secret = receiver.url.rpartition("/")[2]
    assert secret not in logged(stack)
    for args in (["status"], ["status", "--json"], ["--echo", "up", "--orch", name], ["doctor"]):
        done = stack.invoke(*args, code=None, ALERT_WEBHOOK=receiver.url)
        assert secret not in done.stdout + done.stderr


@pytest.mark.long  # 90 seconds
@pytest.mark.parametrize("name", ["prefect"], indirect=True, scope="module")
def test_a_run_whose_worker_is_killed_sends_one_message(stack, receiver, name) -> None:
    with stack.edited("models/slow.sql", runs.SLOW_MODEL):
        command = typed(stack, "run")
        wait_until(lambda: command.poll() is not None or stack.ask(runs.SLOW_QUERIES) == "1", 120)
        worker = stack.root("prefect-worker")
        for process in (worker, *worker.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: bool(receiver.messages), 150)
        assert ended(command)[0] != 0
    stack.invoke("up", "--orch", name, ALERT_WEBHOOK=receiver.url)
    stack.invoke("run")
    ((_, message),) = receiver.messages
    head, why, url = message["text"].splitlines()
    assert head == "daily failed on Prefect"
    assert "worker" in why
    assert re.search(r"/v2/runs/flow-run/[0-9a-f-]{36}$", url)
    receiver.messages.clear()


@pytest.mark.long
@pytest.mark.parametrize("name", ["prefect"], indirect=True, scope="module")
def test_a_run_that_fails_after_it_was_marked_as_crashed_sends_one_message(stack, receiver, name) -> None:
    """As after a cut of the worker's network: the server gives the run up, and then its process comes back and fails."""
    page = PrefectPage(stack)
    worker = stack.root("prefect-worker")

    def is_over() -> bool:
        return not any("prefect.engine" in command_line(child) for child in worker.children(recursive=True))

    with stack.edited("models/slow.sql", runs.SLOW_MODEL):
        command = typed(stack, "run")
        wait_until(lambda: command.poll() is not None or stack.ask(runs.SLOW_QUERIES) == "1", 120)
        flow_run = f"flow_runs/{page.newest()}"
        assert not is_over()
        page.ask("POST", f"{flow_run}/set_state", {"state": {"type": "CRASHED", "message": "no <!heartbeat> & more"}, "force": True})
        wait_until(lambda: bool(receiver.messages), 60)
        stack.ask(runs.SLOW_QUERIES.replace("count(*)", "pg_cancel_backend(pid)"))
        wait_until(is_over, 60)  # with the flow's hook
        assert page.ask("GET", flow_run)["state_type"] == "FAILED"
        assert ended(command)[0] == 1
    stack.invoke("run")
    ((_, message),) = receiver.messages
    assert message["text"].splitlines()[1] == "no &lt;!heartbeat&gt; &amp; more"


@pytest.mark.long
@pytest.mark.parametrize("name", ["prefect"], indirect=True, scope="module")
def test_one_automation_sends_the_message_and_none_is_left_without_an_address(stack, receiver, name) -> None:
    page = PrefectPage(stack)

    def automations() -> list[dict[str, Any]]:
        named = {"automations": {"name": {"any_": ["Alert of crashed flow runs"]}}}
        return page.ask("POST", "automations/filter", named)

    def blocks() -> list[str]:
        return [block["name"] for block in page.ask("POST", "block_documents/filter", {})]

    (known,) = automations()
    assert "alert" in blocks()
    twin = {key: known[key] for key in ("name", "trigger", "actions")}  # as from two workers that start at once
    page.ask("POST", "automations/", twin)
    assert len(automations()) == 2
    stack.invoke("up", "--orch", name, ALERT_WEBHOOK=f"{receiver.url}-2")  # a change, so that the worker is started again
    assert len(automations()) == 1
    page.ask("POST", "automations/", twin)
    stack.invoke("up", "--orch", name)
    assert automations() == []
    assert "alert" not in blocks()  # it has the address
    stack.invoke("up", "--orch", name, ALERT_WEBHOOK=receiver.url)
