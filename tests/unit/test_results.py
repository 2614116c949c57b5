"""The records that are read from dbt's artifacts, and which of them a retry can run."""

from __future__ import annotations

import pytest

from rundbt import results

MANIFEST = {
    "nodes": {"model.p.a": {}, "test.p.unique_a.0123456789": {}},
    "unit_tests": {"unit_test.p.a.it": {}},
    "functions": {"function.p.f": {}},
    "saved_queries": {"saved_query.p.monthly": {}},
}


@pytest.mark.parametrize(
    ("unique_id", "name"),
    [
        ("test.p.unique_a.0123456789", "unique_a"),
        ("test.p.orders.total", "orders.total"),
        ("unit_test.p.a.it", "a::it"),
        ("model.p.a.b", "a.b"),
    ],
)
def test_a_node_has_the_name_that_the_user_gave_it(unique_id, name) -> None:
    assert results.node_record({"unique_id": unique_id, "status": "pass"})["name"] == name


@pytest.mark.parametrize(
    ("failed", "retryable"),
    [
        (["model.p.a"], True),
        (["model.p.a", "unit_test.p.a.it", "operation.p.p-on-run-start-0"], True),
        (["model.p.a", "function.p.f", "saved_query.p.monthly"], True),
        (["operation.p.p-on-run-end-0"], False),
        (["model.p.renamed"], False),
        (["model.p.a", "test.p.unique_a.abcdef0123"], False),
        ([], False),
    ],
    ids=[
        "a model",
        "with a hook",
        "with a function and a saved query",
        "only a hook",
        "a deleted model",
        "a test with other arguments",
        "nothing",
    ],
)
def test_a_retry_needs_every_failed_node_in_the_manifest(failed, retryable) -> None:
    records = [results.node_record({"unique_id": unique_id, "status": "error"}) for unique_id in failed]
    done = results.node_record({"unique_id": "model.p.gone", "status": "success"})
    assert results.retryable([*records, done], MANIFEST) is retryable
