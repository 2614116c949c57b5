"""The parts of the comparison that are calculated, not measured."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dotenv import dotenv_values

from bench.run import PHASES, Typed
from compare import cost, failures, main, seeing, speed, start
from compare.model import Found, Row, Scenario, Section
from compare.products import airflow
from compare.report import SCHEMA, Report, number, text
from compare.trial import PRINT_GRAPH, Graph, Span, Subject, Trial, afterwards, known, reason, spans
from rundbt.api import ApiError
from switchyard import ROOT, orchestrators, settings
from switchyard.errors import BadUsage, StackError

from ..pages_of_reports import Reader

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
ROW = Row("x", "X", "A thing.", "s")
SECTION = Section("s", "S", (), lambda report: f"It takes {report.ranking(ROW)}.")


def report(row: Row = ROW, **values: list[float]) -> Report:
    """A report with one row and the given values of each orchestrator."""
    titles = {name: {"title": name.title(), "versions": {}, "settings": {}} for name in values}
    made = Report({"schema": SCHEMA, "orchestrators": titles, "rows": {}})
    made.declare(SECTION, [Scenario("x", lambda _: iter(()), (row,), 1)])
    for name, each in values.items():
        for round_, value in enumerate(each):
            made.add(Found(row.id, value), name, round_)
    return made


@pytest.mark.parametrize(
    ("values", "best"),
    [
        pytest.param({"a": [1.0, 1.1, 1.2], "b": [1.3, 1.3, 1.4], "c": [5.0, 9.0, 9.0]}, "a", id="apart"),
        pytest.param({"a": [1.0, 1.1, 1.2], "b": [1.3, 1.4], "c": [5.0, 9.0, 9.0]}, None, id="one measured twice"),
        pytest.param({"a": [1.0, 1.1, 1.3], "b": [1.3, 1.4, 1.4]}, None, id="touching"),
        pytest.param({"a": [1.0, 9.0, 1.1], "b": [2.0, 2.1, 2.2]}, None, id="one slow moment"),
        pytest.param({"a": [1.0], "b": [9.0]}, None, id="measured once"),
        pytest.param({"a": [1.0, 1.1, 1.1]}, None, id="nothing to compare with"),
        pytest.param({"a": [1.0, 1.1, 1.1], "b": []}, None, id="the other could not be measured"),
    ],
)
def test_the_best_is_better_in_every_measurement(values, best) -> None:
    assert report(**values).best("x") == best


def test_a_count_that_is_the_same_each_time_needs_one_measurement() -> None:
    exact = replace(ROW, better="high", exact=True)
    assert report(exact, a=[0], b=[92], c=[101]).best("x") == "c"
    assert report(exact, a=[0], b=[101], c=[101]).best("x") is None
    assert report(exact, a=[0], b=[]).best("x") is None
    assert report(exact, a=[0], b=[3]).ranking(exact) == "0.00 s with A and 3 s with B"


def test_the_best_may_be_the_highest_or_missing() -> None:
    values = {"a": [1.0, 1.1, 1.2], "b": [2.0, 2.1, 2.4]}
    assert report(replace(ROW, better="high"), **values).best("x") == "b"
    assert report(replace(ROW, better=None), **values).best("x") is None


def test_a_quick_but_wrong_one_is_not_the_best() -> None:
    made = report(a=[], b=[5.0, 6.0, 6.0])
    for value in (1.0, 1.1, 1.1):
        made.add(Found("x", value, "ends as if all were well", False), "a", 0)
    assert made.best("x") is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": [2.0, 2.1, 2.2], "b": [1.0, 1.1, 1.2]}, "1.10 s with B and 2.10 s with A"),
        ({"a": [2.0, 2.2], "b": [1.0, 1.2]}, "1.10 s with B and 2.10 s with A (measured twice, so no order is claimed)"),
        ({"a": [2.0], "b": [1.0]}, "1.00 s with B and 2.00 s with A (measured once, so no order is claimed)"),
        (
            {"a": [1.0, 2.0, 3.0], "b": [2.0, 2.1, 2.2], "c": [9.0, 9.0, 9.1]},
            "2.00 s with A, 2.10 s with B and 9 s with C (no order is claimed between A and B: their spreads overlap)",
        ),
        ({"a": [1.0], "b": [1.0]}, "1.00 s with each"),
        ({"a": [1.0]}, "1.00 s with A"),
        ({"a": []}, "(not measured)"),
        ({"a": [1.0], "b": []}, "1.00 s with A (not measured with B)"),
    ],
)
def test_a_sentence_claims_no_more_than_the_figures(values, sentence) -> None:
    assert report(**values).ranking(ROW) == sentence


def test_a_sentence_does_not_hide_a_bad_verdict() -> None:
    made = report(a=[], b=[2.0, 2.0, 2.0])
    for value in (1.0, 1.1, 1.2):
        made.add(Found("x", value, "1 of 37 left out", False), "a", 0)
    assert made.ranking(ROW) == "1.10 s with A and 2.00 s with B (not as it should be with A)"


def test_the_sentence_on_failures_counts_verdicts() -> None:
    made = report(failures.BROKEN, a=[], b=[])
    made.add(Found(failures.BROKEN.id, 1.0, "named; all 3 downstream nodes skipped", True), "a", 0)
    made.add(Found(failures.BROKEN.id, 1.0, "named; 1 of 3 downstream nodes ran nevertheless", False), "b", 0)
    assert failures.sentence(made).startswith("With 1 of 2 orchestrators, `invoke run` named")


@pytest.mark.parametrize(
    ("run", "verdict", "good"),
    [
        ((0, True, 3, 0), "ends as if all were well", False),
        ((1, False, 3, 0), "fails without its name", False),
        ((1, True, 3, 1), "named; 1 of 3 downstream nodes ran nevertheless", False),
        ((1, True, 3, 0), "named; all 3 downstream nodes skipped", True),
        ((1, True, 0, 0), "named; nothing is downstream", True),
    ],
)
def test_a_broken_model_is_judged(run, verdict, good) -> None:
    assert failures.judged(*run) == (verdict, good)


@pytest.mark.parametrize(
    ("run", "verdict", "good"),
    [
        ((0, True, False, 0), "the run succeeds; the next one succeeds", True),
        ((1, False, False, 0), "the run fails; the next one succeeds", True),
        ((1, False, True, 0), "the run fails, its query still runs; the next one succeeds", False),
        ((1, False, False, 1), "the run fails; the next one fails", False),
        ((0, False, False, 0), "ends as if all were well, without its last model; the next one succeeds", False),
        ((None, False, False, 0), "the run does not end; the next one succeeds", False),
        ((10, True, False, 0), f"{failures.LOST_SIGHT[True]}; the next one succeeds", None),
        ((10, True, True, 0), f"{failures.LOST_SIGHT[True]}, its query still runs; the next one succeeds", False),
    ],
)
def test_a_disturbed_run_is_judged(run, verdict, good) -> None:
    assert failures.outlived(*run) == (verdict, good)


def test_the_json_is_read_as_it_was_written(tmp_path) -> None:
    made = report(a=[1.0, 2.0], b=[])
    made.add(Found("x", why="it is off"), "b", 0)
    made.write(tmp_path / "report.json")
    read = Report.read(tmp_path / "report.json")
    assert read.content == made.content
    assert (read.summary("x", "a").values, read.summary("x", "b").why) == ((1.0, 2.0), ("it is off",))


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"schema": SCHEMA + 1})])
def test_a_file_that_is_not_a_report_is_refused(tmp_path, content) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadUsage):
        Report.read(tmp_path / "x.json")


def whole(made: Report, name: str = "p") -> Report:
    """The report with everything that its page shows besides figures."""
    content: dict[str, Any] = {"complete": False, "rounds": 1, "seconds": 60, "time": "now", "commit": "c", "runtime": "native"}
    content |= {"machine": {"system": "L", "cores": 2, "memory_mib": 1}, "versions": {}, "base_images": []}
    content |= {"project": {"name": name, "counts": "1 model", "threads": 4}}
    made.content |= content
    return made


def test_a_cell_shows_why_nothing_was_measured() -> None:
    made = report(a=[1.0], b=[])
    made.add(Found("x", why="it is off"), "b", 0)
    (section,) = whole(made).view([SECTION])["sections"]
    assert section["sentence"] == "It takes 1.00 s with A (not measured with B)."
    measured, missing = section["rows"][0]["cells"]
    assert (measured["value"], measured["spread"], measured["why"]) == ("1.00 s", "n = 1", "")
    assert (missing["value"], missing["why"]) == ("", "it is off")


def test_the_first_sentence_of_all_rows_counts_them() -> None:
    other = replace(ROW, id="y", exact=True)
    made = report(a=[1.0], b=[])
    made.declare(SECTION, [Scenario("y", lambda _: iter(()), (other, replace(ROW, id="not reached")), 1)])
    made.add(Found("x", why="it is off"), "b", 0)
    for name, value in {"a": 0.0, "b": 1.0}.items():
        made.add(Found("y", value), name, 0)
    assert whole(made).view([SECTION])["glance"] == "1 of 2 rows were measured with A and B; rows with a best value: 1."


def test_a_verdict_without_a_figure_is_measured() -> None:
    made = report(a=[], b=[])
    made.add(Found("x", None, "the run does not end", False), "a", 0)
    (section,) = whole(made).view([replace(SECTION, sentence=lambda _: "")])["sections"]
    measured, missing = section["rows"][0]["cells"]
    assert (measured["verdicts"], measured["why"]) == ([{"text": "the run does not end", "good": False}], "")
    assert missing["why"] == "the comparison was ended before"


def test_a_cell_counts_its_verdicts_if_they_differ() -> None:
    made = report(a=[], b=[])
    for round_, (verdict, good) in enumerate([("named", True), ("not named", False), ("named", True)]):
        made.add(Found("x", 1.0, verdict, good), "a", round_)
        made.add(Found("x", 1.0, "1 of 3 left out" if round_ else "", None), "b", round_)
    made.add(Found("x", why="it is off"), "b", 3)
    (section,) = whole(made).view([SECTION])["sections"]
    a, b = section["rows"][0]["cells"]
    assert a["verdicts"] == [{"text": "named (2 of 3)", "good": True}, {"text": "not named (1 of 3)", "good": False}]
    assert (b["verdicts"], b["why"]) == ([{"text": "1 of 3 left out (2 of 3)", "good": None}], "it is off")


def test_the_page_is_made_from_saved_figures(tmp_path) -> None:
    hostile = "<script>alert(1)</script>"
    files = {"docker/a/run.py": f"def run():  # {hostile}\n    return 1\n", "docker/a/Dockerfile": "FROM x\n", "docker/a/x": hostile}
    facts = {"versions": {"x": hostile}, "settings": {"KEY": hostile}, "files": files}
    titles = {name: {"title": name.title(), **facts} for name in ("a", "b")}
    made = whole(Report({"schema": SCHEMA, "orchestrators": titles, "rows": {}}), hostile)
    for section in main.SECTIONS:
        made.declare(section, section.scenarios)
        for row in (row for scenario in section.scenarios for row in scenario.rows):
            parts = {"phases": dict.fromkeys(PHASES, 1.0)} if row is speed.RUN else {}
            parts |= {"services": {hostile: 1.0, "b": 2.0}} if row in (cost.MEMORY, cost.PEAK_MEMORY, cost.CPU, cost.PEAK_CPU) else {}
            parts |= {"nodes": [[f"model.p.{hostile}", 0.0, 1.0], ["test.p.t", 0.5, 2.0]]} if row is speed.TOGETHER else {}
            parts |= {"points": [{"models": 10, "run": 3.0, "dbt build": 2.0}]} if row is speed.SLOPE else {}
            parts |= {"files": {"graph": "../a.png", "log": f"{hostile}.png"}} if row is seeing.PICTURES else {}
            made.add(Found(row.id, 2.5, hostile, True, parts), "a", 0)
            made.add(Found(row.id, why=hostile), "b", 0)
    made.write(tmp_path / "report.json")
    (tmp_path / "a.png").write_bytes(PNG)
    main.again(str(tmp_path / "report.json"), None)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert page.loaded == []
    assert "script" not in page.tags
    assert text.count("&lt;script&gt;") > 20
    assert len(page.ids) == len(set(page.ids))
    drawn = [section for section in main.SECTIONS if any(row.unit for scenario in section.scenarios for row in scenario.rows)]
    assert page.tags.count("svg") == page.tags.count("desc") == 7 + len(drawn)
    assert page.tags.count("img") == text.count("data:image/webp") == 1
    assert "is not in the folder of the figures" in text
    assert "stopped before it was complete" in text
    assert '<span class="keyword">def</span> <span class="name">run</span>' in text
    assert '<span class="keyword">FROM</span>' in text
    assert text.count("<code>docker/a/x</code>") == 2


def test_the_code_that_is_counted_is_shown(root) -> None:
    for name in ("airflow", "dagster", "prefect"):
        shown = {path.name for path in start.code(root, name)}
        assert {"Dockerfile", "run_job.py", "alert.py"} <= shown
        assert not [file for file in shown if file.startswith("requirements") or file.endswith(".pyc")]
    assert root / "docker" / "airflow" / "dags" / "jobs.py" in start.code(root, "airflow")


@pytest.mark.parametrize(
    ("example", "missing"),
    [
        ({"A_PASSWORD": "<password>", "PORT": "1", "URL": ""}, []),
        ({"A_PASSWORD": "", "PORT": "1", "URL": ""}, ["A_PASSWORD"]),
        ({"PORT": "1"}, ["A_PASSWORD"]),
    ],
)
def test_settings_that_have_to_be_filled_in_are_counted(example, missing) -> None:
    assert start.to_fill_in("a: ${A_PASSWORD:?is missing}\nb: ${PORT:-1} ${URL:-}\nc: ${A_PASSWORD:?}", example) == missing


def test_no_setting_has_to_be_filled_in_before_the_first_start(root) -> None:
    example = dotenv_values(root / ".env.example", interpolate=False)
    for one in orchestrators.load_all(root).values():
        assert start.to_fill_in(one.file.read_text(encoding="utf-8"), example) == []
        assert len(start.configured(one, "native")) >= len(start.configured(one, "docker")) > 5


@pytest.mark.parametrize(
    ("value", "unit", "shown"), [(3.0, "", "3"), (1234.5, "MB", "1,234 MB"), (12.34, "s", "12.3 s"), (1.234, "×", "1.23 ×"), (0, "", "0")]
)
def test_figures_have_only_significant_digits(value, unit, shown) -> None:
    assert text(value, unit) == shown
    assert number(1.0) == "1.00"


def test_each_orchestrator_comes_first_in_turn() -> None:
    assert [main.turned("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_unit_tests_are_nodes_too(tmp_path) -> None:
    node = {"original_file_path": "models/x.sql", "package_name": "p", "config": {"materialized": "table"}}
    nodes = {id: {**node, "resource_type": id.split(".")[0], "name": id.split(".")[2]} for id in ("model.p.a", "test.p.t", "test.p.u")}
    units = {"unit_test.p.a.works": {**node, "resource_type": "unit_test", "name": "works", "config": {}}}
    metadata = {"project_name": "p", "dbt_version": "1"}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "manifest.json").write_text(
        json.dumps({"metadata": metadata, "nodes": nodes, "unit_tests": units, "child_map": {}})
    )
    done = subprocess.run(
        [sys.executable, "-c", PRINT_GRAPH], env={**os.environ, "SWITCHYARD_TARGET_PATH": str(tmp_path)}, stdout=subprocess.PIPE, check=True
    )
    found = Graph(**json.loads(done.stdout))
    assert main.counted(node["resource_type"] for node in found.nodes.values()) == "1 model, 2 data tests, 1 unit test"
    assert found.middle(frozenset(found.nodes)).id == "model.p.a"


def test_analyses_have_a_plural_of_their_own() -> None:
    assert main.counted(["analysis", "analysis", "seed"]) == "2 analyses, 1 seed"


GRAPH = Graph(
    "p",
    "1.11",
    {
        name: {
            "name": name.split(".")[2],
            "resource_type": name.split(".")[0],
            "package_name": "p" if name != "model.q.other" else "q",
            "original_file_path": f"models/{name.split('.')[2]}.sql",
            "materialized": "ephemeral" if name == "model.p.between" else "table",
            "access": "private" if name == "model.p.hidden" else "protected",
        }
        for name in (
            *("model.p.first", "model.p.between", "model.p.middle", "model.p.last", "model.p.hidden", "model.q.other"),
            *("test.p.t", "seed.p.alone"),
        )
    },
    {
        "model.p.first": ["model.p.middle", "model.p.between"],
        "model.p.middle": ["model.p.last", "test.p.t"],
        "model.p.last": ["exposure.p.page"],
    },
)


def test_the_model_to_break_has_upstream_and_the_most_downstream_nodes() -> None:
    assert GRAPH.middle(frozenset(GRAPH.nodes)).id == "model.p.middle"
    assert GRAPH.downstream("model.p.middle") == {"model.p.last", "test.p.t"}
    assert replace(GRAPH, children={}).middle(frozenset(GRAPH.nodes)).id == "model.p.first"


def test_the_slow_model_comes_after_all_nodes_without_downstream_nodes() -> None:
    assert GRAPH.last(frozenset(GRAPH.nodes)) == ["alone", "between", "last"]
    assert GRAPH.last(frozenset(GRAPH.nodes) - {"model.p.between", "seed.p.alone"}) == ["last"]


def test_postgresqls_work_for_a_node_is_read_from_its_log() -> None:
    comment = '/* {"app": "dbt", "dbt_version": "1.11.16", "node_id": "model.p.first"} */'
    log = [
        f"postgres  | bench 100.500 LOG:  duration: 500.000 ms  statement: {comment}",
        f"postgres  | bench 103.000 LOG:  duration: 1000.000 ms  statement: {comment}",
        "postgres  | bench 104.000 ERROR:  syntax error",
        f"postgres  | bench 104.000 STATEMENT:  {comment.replace('first', 'second')}",
        f"postgres  | bench 105.000 LOG:  duration: 1.0 ms  statement: {comment.replace('model.p.first', 'operation.p.hook')}",
        'postgres  | bench 106.000 LOG:  duration: 1.0 ms  statement: /* {"app": "dbt", "connection_name": "list_db"} */',
        f"postgres  | bench 200.000 LOG:  duration: 1.0 ms  statement: {comment.replace('first', 'late')}",
    ]
    assert spans(log, 100.0, 110.0) == {"model.p.first": Span(100.0, 103.0), "model.p.second": Span(104.0, 104.0)}


def test_the_warm_dbt_is_claimed_only_for_those_that_use_it() -> None:
    made = report(speed.RATIO, a=[1.5, 1.6, 1.7], b=[3.5, 3.6, 3.7])
    made.declare(speed.SECTION, [Scenario("x", lambda _: iter(()), (speed.PLAIN_RATIO,), 1)])
    for name, values in {"a": (2.5, 2.6, 2.7), "b": (3.5, 3.6, 3.7)}.items():
        for value in values:
            made.add(Found(speed.PLAIN_RATIO.id, value), name, 0)
    assert speed.sentence(made).endswith(
        "a run is 2.60 × with A and 3.60 × with B; with the warm dbt, which Switchyard adds, 1.60 × with A."
    )
    for cell in (row["cells"] for row in made.content["rows"].values()):
        cell["a"] = cell["b"]
    assert speed.sentence(made).endswith("a run is 3.60 × with each.")


def test_a_run_that_executed_nothing_has_no_picture() -> None:
    assert speed.together([]) == 0
    made = report(speed.RUN, a=[])
    made.declare(speed.SECTION, speed.SECTION.scenarios)
    made.add(Found(speed.RUN.id, 1.0, parts={"phases": dict.fromkeys(PHASES, 1.0)}), "a", 0)
    made.add(Found(speed.TOGETHER.id, 0, parts={"nodes": []}), "a", 0)
    assert [picture["kind"] for picture in speed.pictures(made)] == ["bars"]


def test_a_node_without_a_statement_is_reported() -> None:
    assert known({"unit_test.p.a.u": Span(0, 1)}, "model.p.a", "unit_test.p.a.u") == [Span(0, 1)]
    with pytest.raises(StackError, match=r"no statement of model\.p\.a\."):
        known({}, "model.p.a", "unit_test.p.a.u")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StackError("A run failed.", "Error: dbt failed."), "A run failed. dbt failed."),
        (ApiError("GET x: HTTP 500"), "The product's API failed: GET x: HTTP 500"),
        (KeyError("model.p.a"), "This is an error in the comparison itself: KeyError: 'model.p.a'"),
    ],
)
def test_a_reason_is_a_sentence(error, text) -> None:
    assert reason(error) == text


def test_nodes_at_the_same_time_are_counted() -> None:
    assert speed.together([Span(0, 2), Span(1, 3), Span(2, 4)]) == 2  # the third begins as the first ends


def test_a_report_of_memory_without_services_has_no_picture() -> None:
    made = report(a=[])
    made.declare(cost.SECTION, cost.SECTION.scenarios)
    made.add(Found(cost.MEMORY.id, 500.0), "a", 0)
    assert cost.pictures(made) == []


@pytest.mark.parametrize(("error", "tidied"), [(None, True), (StackError("x"), True), (KeyboardInterrupt(), False)])
def test_an_interrupt_skips_the_cleanup_of_what_is_removed_anyway(error, tidied) -> None:
    done = []
    with contextlib.suppress(StackError, KeyboardInterrupt), afterwards(lambda: done.append(1)):
        if error:
            raise error
    assert bool(done) == tidied


@pytest.mark.parametrize(
    ("threads", "variables", "shown"),
    [
        (8, {}, "8"),
        ("{{ env_var('DBT_THREADS', '4') | int }}", {}, "4"),
        ("{{ env_var('DBT_THREADS', '4') | int }}", {"DBT_THREADS": "2"}, "2"),
        ("{{ var('threads') }}", {}, "its profile's number of"),
    ],
)
def test_the_threads_of_a_profile_are_shown(threads, variables, shown) -> None:
    assert main.threads(SimpleNamespace(output={"threads": threads}, variables=variables)) == shown


def test_each_round_begins_with_another_orchestrator_and_long_scenarios_run_once() -> None:
    always, once, long = (Scenario(title, lambda _: iter(()), (), 1, depth, once) for title, depth, once in
                          (("always", "default", False), ("once", "default", True), ("long", "full", False)))  # fmt: skip
    steps = main.planned(["a", "b"], 2, [always, once, long], repeated=False)
    assert [(step.number, step.name, step.scenario.title) for step in steps] == [
        *((0, name, title) for name in "ab" for title in ("always", "once", "long")),
        (1, "b", "always"),
        (1, "a", "always"),
    ]
    again = main.planned(["a", "b"], 2, [always, once, long], repeated=True)
    assert [step.scenario.title for step in again] == 4 * ["always", "once", "long"]


def test_the_limits_of_the_services_are_shown() -> None:
    names = ["prefect"]
    rig = SimpleNamespace(
        runtime="docker", orchestrators=orchestrators.load_all(ROOT), settings=settings.defaults(ROOT, {}), names=lambda: names
    )
    assert main.limits(rig) == "memory: prefect-server 1g, prefect-worker 2g, postgres 1024m; CPU: none"
    assert main.limits(SimpleNamespace(runtime="native")) == "none: without Docker"


def test_row_ids_are_unique() -> None:
    rows = [row.id for section in main.SECTIONS for scenario in section.scenarios for row in scenario.rows]
    assert len(rows) == len(set(rows))
    assert main.SECTIONS[0].scenarios[0] is start.UP


def test_services_at_the_same_position_have_one_colour() -> None:
    runs = {"A": {"postgres": 1.0, "a-worker": 2.0}, "B": {"postgres": 3.0, "b-worker": 4.0, "b-page": 5.0}}
    assert cost.stacked(runs) == {
        "parts": ["postgres", "a-worker / b-worker", "b-page"],
        "runs": {"A": {"postgres": 1.0, "a-worker / b-worker": 2.0}, "B": {"postgres": 3.0, "a-worker / b-worker": 4.0, "b-page": 5.0}},
    }


def test_a_verdict_may_be_neither_good_nor_bad() -> None:
    made = report(a=[1.0, 1.1], b=[])
    made.add(Found("x", verdict="Switchyard has no lean form for it"), "b", 0)
    (section,) = whole(made).view([SECTION])["sections"]
    cell = section["rows"][0]["cells"][1]
    assert (cell["value"], cell["verdicts"], cell["why"]) == ("", [{"text": "Switchyard has no lean form for it", "good": None}], "")


class FakeRig:
    """Returns the given answers to the superuser's queries, and can do nothing else."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.settings = settings.defaults(ROOT, {})

    def superuser(self, *_: str) -> str:
        """The next answer."""
        return self.answers.pop(0)


def test_a_warehouse_is_at_rest_after_three_quiet_checks_in_a_row_even_if_late(monkeypatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    rig = FakeRig("0|1", "0|0", "0|0", "1|1", "0|0", "0|0", "0|0")
    assert Trial(Subject(rig, Path(), Path()), "dagster").at_rest(time.time() + 60)
    assert rig.answers == []
    assert Trial(Subject(FakeRig("0|0", "0|0", "0|0"), Path(), Path()), "dagster").at_rest(0)
    assert Trial(Subject(FakeRig("0|0", "1|1"), Path(), Path()), "dagster").at_rest(0) is None


def test_the_leftovers_of_a_fault_are_counted_once_and_for_no_other_fault() -> None:
    rig = FakeRig("a.x__dbt_tmp\na query at work\n", "a.x__dbt_tmp\na.y__dbt_backup\na query at work\n", "\n")
    trial = Trial(Subject(rig, Path(), Path()), "dagster")
    assert [(found.value, found.why) for found in failures.leftovers(trial)] == [(None, "no fault could be made")]
    for fault in ("one", "two", "three"):
        trial.note_left(fault)
    (found,) = failures.leftovers(trial)
    assert (found.value, found.good) == (4, False)
    assert found.verdict == "one: a.x__dbt_tmp, a query at work; two: a.y__dbt_backup, a query at work"


class FakeTrial(Trial):
    """Runs with given exit codes and executed nodes."""

    def __init__(self, *runs: tuple[int, set[str]]) -> None:
        super().__init__(Subject(FakeRig(), Path(), Path()), "dagster")
        self.runs = list(runs)
        self.typed: list[tuple[str, ...]] = []

    def run(self, *args: str) -> Typed:
        """The next run."""
        self.typed.append(args)
        return Typed(0.0, 1.0, self.runs[0][0], ())

    def spans(self, began: float, ended: float) -> dict[str, Span]:
        """The nodes of that run."""
        return dict.fromkeys(self.runs.pop(0)[1], Span(began, ended))


NEEDED = {"model.p.a", "test.p.t", "unit_test.p.u"}


@pytest.mark.parametrize(
    ("runs", "typed", "commands", "tests"),
    [
        pytest.param([(0, NEEDED)], [("--failed",)], (1, ""), (1.0, "2 of 2"), id="at once"),
        pytest.param([(0, {"model.p.a"}), (0, NEEDED)], [("--failed",), ()], (2, ""), (0.0, "0 of 2"), id="tests left out"),
        pytest.param([(1, NEEDED), (0, NEEDED)], [("--failed",), ()], (2, ""), (1.0, "2 of 2"), id="failed"),
        pytest.param([(0, set())] * 3, [("--failed",), (), ()], (None, "not green after 3 commands"), (0.0, "0 of 2"), id="never"),
    ],
)
def test_commands_are_counted_until_everything_has_succeeded(runs, typed, commands, tests) -> None:
    trial = FakeTrial(*runs)
    found = {one.row: one for one in failures.recovered(trial, set(NEEDED))}
    assert trial.typed == typed
    assert (found[failures.CALLS.id].value, found[failures.CALLS.id].verdict) == commands
    assert (found[failures.TESTS.id].value, found[failures.TESTS.id].verdict) == tests


def test_only_the_models_own_tasks_are_cleared() -> None:
    tasks = [f"dbt.{id}" for id in ("dbt_producer_watcher", "a.run", "a.test", "aa.run", "aa.test", "b_run", "bb_run", "c_seed")]
    assert airflow.own_tasks(tasks, "a") == ["dbt.a.run", "dbt.a.test"]
    assert airflow.own_tasks(tasks, "b") == ["dbt.b_run"]
    assert airflow.own_tasks(tasks, "c") == []
