"""The run protocol: how an orchestrator's answer is shown to a user."""

import http.server
import importlib.util
import itertools
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from rundbt import api, jobs, results
from switchyard import console, pipeline, settings
from switchyard.errors import ApiUnusable, BadUsage, RunFailed
from switchyard.runner import Result, Runner

NODE = {
    "unique_id": "model.shop.dim_customers",
    "name": "dim_customers",
    "kind": "model",
    "status": "success",
    "seconds": 0.2,
    "rows": 300,
    "message": None,
}
BROKEN = {**NODE, "status": "error", "rows": None, "message": 'column "nope" does not exist'}


def stream(events, code=0, stderr=""):
    def run(on_line):
        for event in events:
            on_line(json.dumps(event))
        return Result(code, stderr=stderr)

    return run


def events(*nodes, state="success", message=None):
    yield {"event": "started", "job": "daily", "run_id": "1", "url": "http://localhost:1/runs/1"}
    yield from ({"event": "node", **node} for node in nodes)
    yield {"event": "finished", "state": state, "seconds": 9.5, "message": message}


def test_a_good_run_is_reported_in_lines(capsys) -> None:
    run = pipeline.follow("daily", stream(events(NODE)), pipeline.show_event)
    pipeline.conclude(run, "Dagster", Path())
    out = capsys.readouterr().out
    assert "http://localhost:1/runs/1" in out
    assert "success  model     dim_customers" in out
    assert "300 rows" in out
    assert "daily succeeded on Dagster in 9.5 s: 1 success" in out


def test_a_dry_cancel_does_not_claim_that_nothing_runs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(console, "dry", True)
    runner = Runner({}, dry=True)
    pipeline.cancel(SimpleNamespace(active=lambda: "new", orchestrators={"new": None}, runner=runner, trigger=lambda *_: Result(0)))
    assert capsys.readouterr().out == "Would cancel what runs:\n"


def test_a_run_without_nodes_is_not_a_success(capsys) -> None:
    pipeline.conclude(pipeline.follow("daily", stream(events()), lambda _: None), "Dagster", Path())
    out = capsys.readouterr().out
    assert "no node of the project is selected" in out
    assert "succeeded" not in out


def test_the_wait_for_another_run_shows_how_to_end_that_one(capsys) -> None:
    pipeline.show_event({"event": "progress", "message": "waits for daily, running: http://localhost:1/runs/1"})
    assert "invoke run --cancel" in capsys.readouterr().out


def test_an_interrupt_before_the_run_shows_how_to_cancel_one() -> None:
    def interrupted(_):
        raise KeyboardInterrupt

    for job in ("daily", pipeline.RERUN):
        with pytest.raises(KeyboardInterrupt, match="If the run starts anyway, cancel it: invoke run --cancel"):
            pipeline.follow(job, interrupted, lambda _: None)


def test_a_failed_run_shows_the_node_and_its_error() -> None:
    run = pipeline.follow("daily", stream(events(BROKEN, state="failure"), code=1), lambda _: None)
    with pytest.raises(RunFailed) as caught:
        pipeline.conclude(run, "Airflow", Path())
    assert 'model dim_customers: column "nope" does not exist' in str(caught.value)
    assert caught.value.code == 1


def test_a_canceled_run_is_a_failure_without_its_interrupted_nodes() -> None:
    for node in (NODE, BROKEN):
        run = pipeline.follow("daily", stream(events(node, state="canceled"), code=1), lambda _: None)
        with pytest.raises(RunFailed, match="daily ended with canceled on Prefect") as caught:
            pipeline.conclude(run, "Prefect", Path())
        assert (caught.value.code, caught.value.why) == (1, "")


def test_a_run_that_fails_before_any_node_shows_why() -> None:
    run = pipeline.follow("daily", stream(events(state="failure", message="Compilation Error in models/x.sql"), code=1), lambda _: None)
    with pytest.raises(RunFailed, match="daily ended with failure") as caught:
        pipeline.conclude(run, "Airflow", Path())
    assert "models/x.sql" in caught.value.why


@pytest.mark.parametrize("code", [0, 3, 137])
def test_an_incomplete_answer_is_not_a_result(code) -> None:
    with pytest.raises(ApiUnusable, match="gave no usable answer"):
        pipeline.follow("daily", stream(list(events())[:1], code, "connection refused"), lambda _: None)


@pytest.mark.parametrize(("state", "code"), [("success", 1), ("failure", 0), ("canceled", 0), ("succeeded", 0), ("success", 137)])
def test_a_state_that_contradicts_the_exit_code_is_not_a_result(state, code) -> None:
    with pytest.raises(ApiUnusable, match="gave no usable answer") as caught:
        pipeline.follow("daily", stream(events(NODE, state=state), code, "a warning"), lambda _: None)
    assert caught.value.why == f"run_job.py reported the state '{state}' and ended with exit code {code}.\na warning"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("rubbish", "event"),
        ("", "event"),
        ("[1, 2]", "event"),
        ('{"event": "begun"}', "event"),
        ('{"event": ["node"]}', "event"),
        ('{"event": "started", "job": "daily", "run_id": "1"}', "url"),
        ('{"event": "progress", "message": null}', "message"),
        (json.dumps({"event": "node", **NODE, "seconds": None}), "seconds"),
        (json.dumps({"event": "node", **{key: value for key, value in NODE.items() if key != "rows"}}), "rows"),
        ('{"event": "finished", "state": "success", "seconds": 1}', "message"),
        ('{"event": "active", "job": "daily", "url": "u"}', "run_id, state"),
    ],
)
def test_a_line_that_is_no_event_is_shown(line, wrong) -> None:
    def printed(on_line):
        on_line(line)
        return Result(0)

    with pytest.raises(ApiUnusable, match="not an event of its protocol") as caught:
        pipeline.follow("daily", printed, pipeline.show_event)
    assert caught.value.why.split("\n") == [line, f"missing or wrong: {wrong}"]


def test_an_active_run_may_have_no_worker_and_further_fields() -> None:
    def trigger(orchestrator, words, on_line):
        on_line('{"event": "active", "run_id": "1", "job": "daily", "url": "u", "state": "queued", "since": null, "pool": "dbt"}')
        return Result(0)

    runtime = SimpleNamespace(active=lambda: "new", orchestrators={"new": None}, runner=Runner({}), trigger=trigger)
    assert pipeline.active_runs(runtime) == [pipeline.ActiveRun("1", "daily", "u", "queued")]


def test_an_unknown_job_is_refused_with_the_known_ones(root) -> None:
    with pytest.raises(BadUsage) as caught:
        pipeline.known_job(settings.defaults(root, {}), "dayly")
    assert "daily, smoke, freshness, full_refresh" in caught.value.why


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param(None, "daily", id="no file"),
        pytest.param("jobs: {hourly: {dbt: run}, daily: {dbt: build}}", "daily", id="daily, at any place"),
        pytest.param("jobs: {hourly: {dbt: run}, weekly: {dbt: build}}", "hourly", id="the first of the file"),
    ],
)
def test_the_default_job_is_daily_or_the_first(tmp_path, root, text, first) -> None:
    if text:
        (tmp_path / "orchestration.yml").write_text(text)
    loaded = settings.defaults(root, {})
    assert pipeline.known_job(replace(loaded, values={**loaded.values, "SWITCHYARD_SOURCE_PATH": str(tmp_path)}), None) == first


def test_a_record_of_a_model() -> None:
    record = results.node_record(
        {
            "unique_id": "model.shop.fct_orders",
            "status": "success",
            "execution_time": 0.1234,
            "adapter_response": {"rows_affected": 7},
            "failures": None,
            "message": "INSERT 0 7",
        }
    )
    assert record == {
        "unique_id": "model.shop.fct_orders",
        "name": "fct_orders",
        "kind": "model",
        "status": "success",
        "seconds": 0.12,
        "rows": 7,
        "message": None,
    }


def test_a_record_of_a_failed_test() -> None:
    record = results.node_record(
        {
            "unique_id": "test.shop.unique_orders_id.ab12ab12ab",
            "status": "fail",
            "execution_time": 0.1,
            "adapter_response": {},
            "failures": 3,
            "message": "Got 3 results",
        }
    )
    assert (record["name"], record["kind"], record["rows"], record["message"]) == ("unique_orders_id", "test", 3, "Got 3 results")
    assert results.failures([record]) == [record]


@pytest.mark.parametrize(
    ("status", "failed", "again"),
    [
        *((status, True, True) for status in ("error", "fail", "runtime error", "partial success")),
        ("skipped", False, True),
        *((status, False, False) for status in ("success", "pass", "warn", "no-op")),
    ],
)
def test_a_nodes_status_decides_whether_it_fails_a_run_and_runs_again(status, failed, again) -> None:
    record = results.node_record({"unique_id": "source.shop.raw.orders", "status": status})
    assert (bool(results.failures([record])), bool(results.left([record]))) == (failed, again)


def test_a_view_has_no_row_count() -> None:
    assert (
        results.node_record({"unique_id": "model.shop.v", "status": "success", "adapter_response": {"rows_affected": -1}})["rows"] is None
    )


def test_colour_codes_are_removed_from_messages() -> None:
    record = results.node_record({"unique_id": "unit_test.shop.m.t", "status": "fail", "message": "\x1b[31mactual\x1b[0m differs"})
    assert record["message"] == "actual differs"


@pytest.mark.parametrize(
    ("words", "good", "code"),
    [
        (["daily"], True, 0),
        (["daily"], False, 1),
        (["--failed"], False, 1),
        (["dayly"], True, 2),
        (["--active"], True, 3),
    ],
)
def test_a_run_ends_with_the_code_of_the_line_protocol(root, monkeypatch, words, good, code) -> None:
    def unreachable() -> list[dict]:
        raise api.ApiError("no answer")

    monkeypatch.setattr(sys, "argv", ["run_job.py", *words])
    monkeypatch.setattr(jobs, "load", lambda: jobs.read(root / "dbt_project"))
    with pytest.raises(SystemExit) as caught:
        api.main(lambda job, options: good, lambda: good, unreachable, unreachable)
    assert caught.value.code == code


def program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of an orchestrator's `run_job.py`."""
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location(f"{folder.name}_run_job", folder / "run_job.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_results_of_more_tasks_than_airflow_returns_at_once_are_read(root, monkeypatch) -> None:
    class LongDagRun:
        """More entries than it returns at once, each with one node."""

        def request(self, method: str, path: str) -> dict:
            address, _, query = path.partition("?")
            if not query:
                return {"value": {"nodes": [{"unique_id": address}], "error": None}}
            asked = dict(one.split("=") for one in query.split("&"))
            first = int(asked.get("offset", 0))
            entries = [{"task_id": str(number), "timestamp": "2026-01-01T00:00:00+00:00"} for number in range(250)]
            return {"xcom_entries": entries[first : first + min(int(asked["limit"]), 100)], "total_entries": 250}

    assert len(program(root / "docker" / "airflow", monkeypatch).read_results(LongDagRun(), "dags/daily/dagRuns/1")["nodes"]) == 250


def test_the_wait_for_a_run_without_a_scheduler_is_limited(root, monkeypatch, capsys) -> None:
    """Such as a native scheduler that has ended together with PostgreSQL: nothing starts it again."""
    run_job = program(root / "docker" / "airflow", monkeypatch)
    seconds = itertools.count()  # one passes between two readings of the clock
    monkeypatch.setattr(api.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(run_job.time, "monotonic", lambda: next(seconds))

    class StuckDagRun:
        def __init__(self, *states: str) -> None:
            self.states = iter(states)

        def request(self, method: str, path: str) -> dict:
            if path == "monitor/health":
                return {"scheduler": {"status": next(self.states)}}
            return {"state": "running", "total_entries": 1 if path.endswith("limit=1") else 0}

    with pytest.raises(api.ApiError, match="scheduler does not report"):
        run_job.follow(StuckDagRun("unhealthy", "unhealthy", "healthy", *["unhealthy"] * 200), "dags/daily/dagRuns/1")
    assert capsys.readouterr().out.count("waits for Airflow's scheduler") == 2


def test_a_run_with_options_is_listed_with_its_jobs_name(root, monkeypatch) -> None:
    run_job = program(root / "docker" / "airflow", monkeypatch)
    dag_run = {"dag_id": "daily-custom", "dag_run_id": "1", "state": "queued", "start_date": None}

    class WithOneRun:
        def request(self, method: str, path: str) -> dict:
            name, found = ("dag_runs", [dag_run]) if path.startswith("dags/~/dagRuns?") else ("task_instances", [])
            return {name: found, "total_entries": len(found)}

    monkeypatch.setenv("SWITCHYARD_UI_URL", "http://localhost:8080")
    (found,) = run_job.find_active(WithOneRun())
    assert (found["job"], found["dag"]) == ("daily", "daily-custom")
    assert "/dags/daily-custom/" in found["url"]


def test_a_flow_run_that_begins_between_two_requests_is_listed_once(root, monkeypatch) -> None:
    run_job = program(root / "docker" / "prefect", monkeypatch)
    flow_run = {"id": "1", "name": "tame-owl", "parameters": {"job": "daily"}, "state_name": "Pending", "labels": {}, "start_time": None}
    states = iter(["SCHEDULED", "PENDING"])

    def answer(method: str, path: str, body: dict) -> list[dict]:
        return [flow_run] if next(states) in body["flow_runs"]["state"]["type"]["any_"] else []

    monkeypatch.setattr(run_job, "request", answer)
    monkeypatch.setenv("SWITCHYARD_UI_URL", "http://localhost:4200")
    assert [run["run_id"] for run in run_job.active()] == ["1"]


def test_a_rerun_has_the_name_of_the_run_that_it_repeats(capsys) -> None:
    run = pipeline.follow(pipeline.RERUN, stream(events(NODE)), lambda _: None)
    pipeline.conclude(run, "Airflow", Path())
    assert "daily succeeded on Airflow" in capsys.readouterr().out


def test_a_rerun_that_fails_before_its_start_is_called_so() -> None:
    finished = {"event": "finished", "state": "failure", "seconds": 0.0, "message": "dbt cannot parse the project"}
    with pytest.raises(RunFailed, match="The re-run ended with failure on Dagster"):
        pipeline.conclude(pipeline.follow(pipeline.RERUN, stream([finished], 1), lambda _: None), "Dagster", Path())


def test_a_rerun_of_nothing_shows_why(capsys) -> None:
    finished = {"event": "finished", "state": "success", "seconds": 0.0, "message": "The last run, daily, succeeded."}
    pipeline.conclude(pipeline.follow(pipeline.RERUN, stream([finished]), pipeline.show_event), "Dagster", Path())
    assert "Nothing to run again. The last run, daily, succeeded." in capsys.readouterr().out


def test_both_artifacts_of_a_command_are_read(tmp_path) -> None:
    assert results.read(tmp_path) == []
    for file, unique_id in (("run_results.json", "model.shop.m"), ("sources.json", "source.shop.raw.s")):
        (tmp_path / file).write_text(json.dumps({"results": [{"unique_id": unique_id, "status": "success"}]}))
    assert [record["kind"] for record in results.read(tmp_path)] == ["model", "source"]


@pytest.mark.parametrize(
    ("method", "tries", "answers"), [("GET", 5, True), ("PATCH", 5, True), ("POST", 5, False), ("DELETE", 5, False), ("GET", 1, False)]
)
def test_a_request_that_may_be_sent_twice_is_repeated_after_a_server_error(monkeypatch, method, tries, answers) -> None:
    class Server(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            type(self).asked += 1
            self.send_response(500 if self.asked < 3 else 200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_PATCH = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(api, "RETRY_PAUSE_S", 0.01)
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            if answers:
                assert api.request(method, url, tries=tries) == {}
            else:
                with pytest.raises(api.ApiError, match="HTTP 500"):
                    api.request(method, url, tries=tries)
        finally:
            server.shutdown()


def test_a_file_that_dbt_cannot_decode_is_reported_if_dbt_does_not(tmp_path) -> None:
    (tmp_path / "fine.csv").write_text("id\nü\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_text("id\nü\n", encoding="latin-1")
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe")
    run = pipeline.Run("daily", "http://x", "failure", message="'utf-8' codec can't decode byte 0xfc in position 3: invalid start byte")
    with pytest.raises(RunFailed) as caught:
        pipeline.conclude(run, "Prefect", tmp_path)
    assert caught.value.why.endswith("\nNot in UTF-8, which dbt requires: latin.csv")
