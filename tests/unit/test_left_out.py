"""The XComs for nodes that dbt has left out: without them, Cosmos' watchers would wait without end."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest

from ..stacks import ROOT

MODULE = importlib.util.spec_from_file_location("results_xcom", ROOT / "docker" / "airflow" / "results_xcom.py")
assert MODULE
results_xcom = importlib.util.module_from_spec(MODULE)
MODULE.loader.exec_module(results_xcom)

MANIFEST = {
    "nodes": {
        "model.p.a": {"resource_type": "model"},
        "model.p.b": {"resource_type": "model"},
        "test.p.of_b.1": {"resource_type": "test"},
    },
    "child_map": {"model.p.a": ["model.p.b"], "model.p.b": ["test.p.of_b.1", "exposure.p.x"]},
}
FAIL_FAST = "Skipping due to fail_fast"
EPHEMERAL = "Compilation Error in model.p.b, caused by compilation error in referenced ephemeral model model.p.a"


def record(unique_id: str, status: str = "success", message: str | None = None) -> dict:
    return {"unique_id": unique_id, "status": status, "message": message}


@pytest.mark.parametrize(
    ("records", "found"),
    [
        pytest.param([record("model.p.a"), record("model.p.b"), record("test.p.of_b.1", "pass")], {}, id="nothing"),
        pytest.param([record("model.p.a"), record("model.p.b")], {"model__p__b_tests_status": "pass"}, id="a test, added during the run"),
        pytest.param(
            [record("model.p.a")],
            {"model__p__b_status": {"status": "success", "outlet_uris": []}, "model__p__b_tests_status": "pass"},
            id="a model, without SQL",
        ),
        pytest.param(
            [
                record("model.p.a", "error", "no such column"),
                record("model.p.b", "skipped", FAIL_FAST),
                record("test.p.of_b.1", "skipped", FAIL_FAST),
            ],
            {"model__p__b_status": {"status": "failed", "outlet_uris": []}, "model__p__b_tests_status": "fail"},
            id="what fail_fast has left out",
        ),
        pytest.param(
            [record("model.p.a", "partial success", "1 of 2 batches"), record("model.p.b", "skipped"), record("test.p.of_b.1", "skipped")],
            {
                "model__p__a_status": {"status": "failed", "outlet_uris": []},
                "model__p__b_status": {"status": "failed", "outlet_uris": []},
            },
            id="some batches of a microbatch",
        ),
        pytest.param(
            [record("model.p.b", "skipped", EPHEMERAL), record("test.p.of_b.1", "skipped")],
            {
                "model__p__a_status": {"status": "failed", "outlet_uris": []},
                "model__p__b_status": {"status": "failed", "outlet_uris": []},
            },
            id="an ephemeral model that failed",
        ),
    ],
)
def test_each_task_of_a_node_that_dbt_left_out_gets_a_result(records, found) -> None:
    assert results_xcom.left_out(MANIFEST, records) == found


def test_the_error_of_an_ephemeral_model_is_in_the_result(tmp_path) -> None:
    """dbt has no result of it, only of what it skipped."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "run_results.json").write_text(json.dumps({"results": [record("model.p.b", "skipped", EPHEMERAL)]}))
    (tmp_path / "logs").mkdir()
    messages = ["\x1b[31mFailure in model a (models/a.sql)\x1b[0m", '  relation "nowhere" does not exist']
    (tmp_path / "logs" / "dbt.log").write_text("".join(json.dumps({"info": {"msg": message}}) + "\n" for message in messages))
    pushed: dict = {}
    results_xcom.push_results(str(tmp_path), {"ti": SimpleNamespace(task_id="dbt", xcom_push=pushed.__setitem__)})
    assert pushed["dbt_results"]["error"] == 'Failure in model a (models/a.sql)\n  relation "nowhere" does not exist'
