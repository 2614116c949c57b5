"""The message about a failed run, and how it is sent."""

from __future__ import annotations

import shutil

import pytest

from compare import alerting
from compare.alerting import Receiver
from rundbt import alerts
from switchyard import settings
from switchyard.errors import BadConfiguration

URL = "http://localhost:1/runs/1"


def node(name: str, message: str | None) -> dict[str, str | None]:
    return {"kind": "model", "name": name, "status": "error", "message": message}


@pytest.fixture(autouse=True)
def _no_address(monkeypatch) -> None:
    monkeypatch.delenv(alerts.VARIABLE, raising=False)
    monkeypatch.setattr(alerts, "_hidden", "")


@pytest.mark.parametrize(
    ("failed", "why", "lines"),
    [
        ([node("a", "Database Error in model a (models/a.sql)\n  no such column\n  LINE 1")], "", ["model a: no such column"]),
        ([node("a", "Got 1 result, configured to fail if != 0")], "", ["model a: Got 1 result, configured to fail if != 0"]),
        ([node("a", None)], "", ["model a: error"]),
        ([node("a", "one"), node("b", "two")], "never shown", ["model a: one", "model b: two"]),
        ([], "\nThe process was killed.\nAt line 3", ["The process was killed."]),
        ([], "", []),
    ],
)
def test_a_message_has_the_job_what_failed_and_the_page(failed, why, lines) -> None:
    text = alerts.message("daily", "Dagster", URL, failed, why)["text"]
    assert text.splitlines() == ["daily failed on Dagster", *lines, URL]


def test_a_message_is_short_no_matter_how_much_dbt_printed() -> None:
    text = alerts.message("daily", "Dagster", URL, [node(f"n{number}", "x" * 9999) for number in range(500)])["text"]
    assert "and 480 more" in text.splitlines()
    assert len(text) < 10_000


def test_slacks_special_characters_are_escaped() -> None:
    assert "a &lt;!channel&gt; &amp; b" in alerts.message("daily", "Dagster", URL, [node("n", "a <!channel> & b")])["text"]


def test_it_is_sent_once_and_the_log_has_no_address(monkeypatch, capsys) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv(alerts.VARIABLE, receiver.url)
        alerts.send({"text": "x"})
        assert [content for _, content in receiver.messages] == [{"text": "x"}]
    alerts.send({"text": "x"})  # the receiver has ended
    output = capsys.readouterr().err.splitlines()
    assert output == ["alert: sent, HTTP 200", "alert: not sent, ConnectionRefusedError"]


def test_a_webhook_that_hangs_is_left_alone(monkeypatch, capsys) -> None:
    monkeypatch.setattr(alerts, "SEND_TIMEOUT_S", 0.2)
    with Receiver() as receiver:
        receiver.hang = True
        monkeypatch.setenv(alerts.VARIABLE, receiver.url)
        alerts.send({"text": "x"})
    assert capsys.readouterr().err == "alert: no answer in 0.2 seconds\n"


@pytest.mark.parametrize("address", ["http://user:hush@[/", "https://hush.invalid:99999/x"])
def test_an_invalid_address_is_not_shown(monkeypatch, capsys, address) -> None:
    monkeypatch.setenv(alerts.VARIABLE, address)
    alerts.send({"text": "x"})
    output = capsys.readouterr().err
    assert output.startswith("alert: not sent, ")
    assert "hush" not in output


def test_an_address_that_is_hidden_is_still_known(monkeypatch) -> None:
    assert not alerts.wanted()
    monkeypatch.setenv(alerts.VARIABLE, URL)
    alerts.hide()
    alerts.hide()
    assert alerts.VARIABLE not in alerts.os.environ
    assert alerts.wanted()


@pytest.mark.parametrize("value", ["hush", "ftp://hush", "https://", "https:// hush"])
def test_an_invalid_webhook_is_refused_and_not_shown(root, tmp_path, value) -> None:
    shutil.copy(root / ".env.example", tmp_path)
    with pytest.raises(BadConfiguration) as caught:
        settings.load(tmp_path, {"ALERT_WEBHOOK": value}, write=False)
    assert "ALERT_WEBHOOK" in caught.value.what
    assert "hush" not in f"{caught.value.what} {caught.value.why} {caught.value.next}"


@pytest.mark.parametrize(
    ("texts", "verdict", "good"),
    [
        (["daily failed\nmodel a: x"], "names the model, once; by y", True),
        (["daily failed\nmodel a: x"] * 2, "names the model, 2 times; by y", False),
        (["daily failed\nmodel ab: x"], "without its name, once; by y", False),
    ],
)
def test_a_message_is_judged(texts, verdict, good) -> None:
    found = alerting.judged([(12.0, {"text": text}) for text in texts], 10.0, "a", "by y")
    assert (found.value, found.verdict, found.good) == (2.0, verdict, good)


def test_a_missing_message_has_no_figure_and_a_bad_verdict() -> None:
    found = alerting.judged([], 10.0, "a", "by y")
    assert (found.value, found.verdict, found.good) == (None, "no message within 180 s", False)
