"""What the section Seeing counts in a product's answers."""

from __future__ import annotations

import pytest

from compare import seeing
from compare.model import Found
from compare.products import airflow, dagster, prefect
from compare.products.product import Key, Thing
from compare.report import Report
from switchyard.errors import StackError


def node(kind: str, name: str, **more) -> dict:
    return {"kind": kind, "name": name, "description": "", "columns": {}, "table": False, "raw": "", "compiled": "", **more}


DECLARED = seeing.Declared(
    {
        "source.p.raw.rows": node("source", "rows"),
        "seed.p.letters": node("seed", "letters", table=True),
        "model.p.first": node("model", "first", description="One row\nper letter.", raw="select {{ x }}", compiled="select\n  1"),
        "model.p.last.v2": node("model", "last", columns={"id": "Key.", "other": ""}, table=True),
        "test.p.unique_first.abc": node("test", "unique_first"),
        "unit_test.p.first.works": node("unit_test", "works"),
        "exposure.p.page": node("exposure", "page"),
    },
    {
        "source.p.raw.rows": ["model.p.first"],
        "seed.p.letters": ["model.p.first"],
        "model.p.first": ["model.p.last.v2", "test.p.unique_first.abc", "exposure.p.page"],
    },
    [{"name": "Team", "email": "team@example.com"}],
)


def numbers(things: list[Thing]) -> dict[str, tuple[int, int]]:
    """For each row, how many things are shown, and of how many; rows without any are left out."""
    found = {row.id.removeprefix("seen_"): one for row, one in seeing.count(DECLARED, things).items()}
    return {id: (len(one.shown), len(one.all)) for id, one in found.items() if one.shown}


def test_a_node_without_its_exact_name_is_not_counted() -> None:
    assert numbers([]) == {}
    assert numbers([Thing(Key("seed", "first"), "first"), Thing(Key("model", "firs"), "first")]) == {}
    assert {row: len(one.all) for row, one in seeing.count(DECLARED, []).items()} == {
        **dict.fromkeys((seeing.SOURCES, seeing.SEEDS, seeing.EXPOSURES, seeing.DESCRIPTIONS, seeing.COLUMNS, seeing.OWNERS), 1),
        **dict.fromkeys((seeing.RAW, seeing.COMPILED), 1),
        **dict.fromkeys((seeing.MODELS, seeing.TESTS, seeing.COUNTS), 2),
        seeing.SNAPSHOTS: 0,
        seeing.EDGES: 3,
    }


def test_texts_are_searched_only_in_the_nodes_own_content() -> None:
    content = {"doc": "…One row per  letter.", "sql": "select {{ x }}"}
    assert numbers([Thing(Key("model", "first"), content)]) == {"models": (1, 2), "descriptions": (1, 1), "raw_sql": (1, 1)}
    assert numbers([Thing(Key("model", "first"), {"sql": ["select 1"]})]) == {"models": (1, 2), "compiled_sql": (1, 1)}
    assert numbers([Thing(Key("seed", "letters"), content)]) == {"seeds": (1, 1)}


@pytest.mark.parametrize("name", ["last", "last.v2", "last_v2"])
def test_a_version_of_a_model_and_its_documented_columns_are_seen(name) -> None:
    assert numbers([Thing(Key("model", name), {"columns": [{"name": "id", "description": "Key."}]})])["columns"] == (1, 1)
    assert "columns" not in numbers([Thing(Key("model", name), {"columns": [{"name": "id", "description": None}]})])


def test_an_owner_counts_only_where_it_is_shown_as_owner() -> None:
    assert "owners" not in numbers([Thing(Key("model", "first"), "team@example.com")])
    assert numbers([Thing(Key("model", "first"), None, [{"email": "team@example.com"}])])["owners"] == (1, 1)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ({"name": None, "email": ["a@example.com", "b@example.com"]}, ["a@example.com", "b@example.com"]),
        ({"name": "Team", "email": "a@example.com"}, ["a@example.com", "Team"]),
        ({"name": "Team"}, ["Team"]),
        ({"email": []}, []),
    ],
)
def test_an_owner_may_have_several_addresses(owner, names) -> None:
    assert seeing.called(owner) == names
    declared = seeing.Declared({}, {}, [owner])
    things = [Thing(Key("model", "first"), None, [names[-1:]])]
    assert seeing.count(declared, things)[seeing.OWNERS] == seeing.Counted(names[:1], names[:1])


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        ({"label": "dagster/row_count", "intValue": 3}, True),
        ([{"extra": {"rows": 0}}], True),
        ({"label": "dagster/row_count"}, False),
        ({"rows": "many", "arrows": 1, "label": "x", "intValue": 1}, False),
    ],
)
def test_a_row_count_is_a_number_with_that_name(answer, counted) -> None:
    assert seeing.has_row_count(answer) is counted


def test_edges_are_direct() -> None:
    things = [Thing(Key("model", "first"), "", before=frozenset({Key("seed", "letters")})), Thing(Key("model", "last"), "")]
    assert numbers(things)["edges"] == (1, 3)


def test_airflows_tasks_are_known_by_their_ids() -> None:
    assert airflow.node_of("dbt.raw_rows_seed") == Key("seed", "raw_rows")
    assert airflow.node_of("dbt.first.run") == Key("model", "first")
    assert airflow.node_of("dbt.dbt_producer_watcher") is airflow.node_of("dbt.first.test") is airflow.node_of("dbt") is None


def test_the_picture_of_what_failed_is_of_a_task_that_failed() -> None:
    done = {"dbt.first.run": {"state": "failed"}, airflow.PRODUCER: {"state": "failed"}}
    assert airflow.failed_task(done, "dbt.first.run") == "dbt.first.run"
    assert airflow.failed_task({**done, "dbt.first.run": {"state": "upstream_failed"}}, "dbt.first.run") == airflow.PRODUCER
    with pytest.raises(StackError, match="no task that failed"):
        airflow.failed_task({"dbt.first.run": {"state": "upstream_failed"}}, "dbt.first.run")


def test_airflows_edge_leads_through_the_task_of_the_tests() -> None:
    edges = {
        "dbt.rows_seed": ["dbt.first.run"],
        "dbt.first.run": ["dbt.first.test"],
        "dbt.first.test": ["dbt.last_run"],
        "dbt.last_run": [],
    }
    tasks = [{"task_id": id, "owner": "airflow", "downstream_task_ids": after} for id, after in edges.items()]
    found = {thing.key: thing for thing in airflow.read_things(tasks, {"dbt.last_run": {"rendered_fields": {"compiled_sql": "select 1"}}})}
    assert found[Key("model", "first")].before == {Key("seed", "rows")}
    assert found[Key("model", "last")].before == {Key("model", "first")}
    assert "compiled_sql" in str(found[Key("model", "last")].content)
    assert len(found) == 3


def test_dagsters_assets_are_known_by_dbts_id_and_its_checks_by_their_name() -> None:
    def asset(path: str, entries: list, *before: str, checks: tuple[str, ...] = ()) -> dict:
        return {
            "assetKey": {"path": ["s", path]},
            "metadataEntries": entries,
            "dependencyKeys": [{"path": ["s", one]} for one in before],
            "owners": [],
            "assetChecksOrError": {"checks": [{"name": name} for name in checks]},
        }

    entry = {"label": "dagster_dbt/unique_id", "text": "model.p.first"}
    things = dagster.read_things([asset("x", [entry], "rows", checks=("unique_first",)), asset("rows", [])])
    assert [thing.key for thing in things] == [Key("model", "first"), Key("test", "unique_first"), Key("source", "rows")]
    assert things[0].before == {Key("source", "rows")}


def test_prefects_task_runs_and_assets_are_one_node() -> None:
    def event(name: str, *before: str, **payload: str) -> dict:
        related = [{"prefect.resource.id": f"postgres://d/{one}", "prefect.resource.role": "asset"} for one in before]
        return {"resource": {"prefect.resource.id": f"postgres://d/s/{name}"}, "related": related, "payload": payload}

    events = [event("first", "s/rows", unique_id="model.p.first"), event("rows")]
    found = {
        thing.key: thing for thing in prefect.read_things([{"name": "model first"}, {"name": "test unique_first"}, {"name": "x"}], events)
    }
    assert set(found) == {Key("model", "first"), Key("test", "unique_first"), Key("source", "rows")}
    assert found[Key("model", "first")].before == {Key("source", "rows")}
    assert len(found[Key("model", "first")].content) == 2


def test_a_cell_shows_the_total() -> None:
    assert seeing.found(seeing.MODELS, seeing.Counted(["a"], ["a", "b"])) == Found(seeing.MODELS.id, 1, "of 2", None, {"missing": ["b"]})
    assert seeing.found(seeing.MODELS, seeing.Counted(["a"], ["a"])).good is True
    assert seeing.found(seeing.MODELS, seeing.Counted([], [])).verdict == "the project has none"


def test_the_highest_count_is_the_best_even_if_incomplete() -> None:
    made = Report({"orchestrators": {"a": {"title": "A"}, "b": {"title": "B"}}, "rows": {}})
    made.declare(seeing.SECTION, seeing.SECTION.scenarios)
    for name, value in (*3 * [("a", 3)], *3 * [("b", 0)]):
        made.add(Found(seeing.TESTS.id, value, "of 4"), name, 0)
    assert made.best(seeing.TESTS.id) == "a"


def test_existing_pictures_are_shown_side_by_side() -> None:
    made = Report({"orchestrators": {"a": {"title": "A"}, "b": {"title": "B"}}, "rows": {}})
    made.declare(seeing.SECTION, seeing.SECTION.scenarios)
    assert seeing.drawn(made) == []
    made.add(Found(seeing.PICTURES.id, 2, "of 3", None, {"files": {"graph": "a-graph.png", "log": "a-log.png"}}), "a", 0)
    made.add(Found(seeing.PICTURES.id, why="no browser"), "b", 0)
    assert [(spec["title"], spec["shots"]) for spec in seeing.drawn(made)] == [
        (seeing.SHOWN["graph"], [{"name": "A", "file": "a-graph.png"}]),
        (seeing.SHOWN["log"], [{"name": "A", "file": "a-log.png"}]),
    ]
