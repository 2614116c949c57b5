"""What a user sees and does on Dagster's page, through the GraphQL API that the page itself uses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rundbt import api

from .. import pages
from ..stacks import wait_until

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {... on LaunchRunSuccess {run {runId}} ... on Error {message}}
}"""
REEXECUTE = """
mutation ($parent: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: FROM_FAILURE}) {
    ... on LaunchRunSuccess {run {runId}} ... on Error {message}
  }
}"""
RUN = """
query ($run: ID!) {
  runOrError(runId: $run) {... on Run {status}}
  logsForRun(runId: $run) {... on EventConnection {events {
    ... on ObservationEvent {assetKey {path} metadataEntries {... on JsonMetadataEntry {jsonString}}}
    ... on ExecutionStepFailureEvent {failureMetadata {description}}
  }}}
}"""
GRAPH = "{assetNodes {assetKey {path} dependencyKeys {path} isExecutable}}"
TABLES = """{assetNodes {assetKey {path} assetMaterializations(limit: 1) {metadataEntries {
  label ... on IntMetadataEntry {intValue} ... on TableColumnLineageMetadataEntry {lineage {columnName columnDeps {columnName}}}
}}}}"""
NEWEST = "{runsOrError(limit: 1) {... on Runs {results {runId}}}}"


def ask(stack, query: str, **variables: Any) -> dict[str, Any]:
    """Send a query as the page does; returns the server's answer."""
    url = f"http://127.0.0.1:{stack.ports['DAGSTER_PORT']}/graphql"
    sign_in = api.basic_auth(f"admin:{stack.secrets()['DAGSTER_ADMIN_PASSWORD']}")
    answer = api.request("POST", url, {"query": query, "variables": variables}, sign_in)
    assert "errors" not in answer, answer
    return answer["data"]


def outcome(stack, run: str) -> tuple[str, dict[str, str], str]:
    """The run's state when it has ended, each node's status, and why it failed."""
    wait_until(lambda: ask(stack, RUN, run=run)["runOrError"]["status"] in ("SUCCESS", "FAILURE", "CANCELED"), 120)
    answer = ask(stack, RUN, run=run)
    nodes, why = {}, ""
    for event in answer["logsForRun"]["events"]:
        if event.get("assetKey", {}).get("path") == ["dbt_results"]:
            nodes = {record["name"]: record["status"] for record in json.loads(event["metadataEntries"][0]["jsonString"])}
        why = (event.get("failureMetadata") or {}).get("description") or why
    return answer["runOrError"]["status"], nodes, why


def test_the_page_asks_for_the_password(stack) -> None:
    stack.on("dagster")
    pages.asks_for_the_password(stack)


def test_the_graph_leads_from_the_seeds_to_the_marts(stack) -> None:
    stack.on("dagster")
    nodes = {"/".join(node["assetKey"]["path"]): node for node in ask(stack, GRAPH)["assetNodes"]}
    above = ["marts/rpt_sales_summary"]
    for key in above:
        above += ["/".join(parent["path"]) for parent in nodes[key]["dependencyKeys"]]
    assert {"raw/raw_orders", "raw/raw_returns", "shop/raw_orders"} <= set(above)


def test_a_selected_asset_is_built_with_only_its_tests(stack) -> None:
    stack.on("dagster")
    selector = {"repositoryLocationName": "dbt", "repositoryName": "__repository__", "jobName": "__ASSET_JOB"}
    selector["assetSelection"] = [{"path": ["staging", "stg_shop__orders"]}]
    answer = ask(stack, LAUNCH, params={"selector": selector, "runConfigData": {}})["launchRun"]
    state, nodes, _ = outcome(stack, answer["run"]["runId"])
    assert state == "SUCCESS"
    assert nodes["stg_shop__orders"] == "success"
    assert nodes["unique_stg_shop__orders_order_id"] == "pass"
    assert "fct_orders" not in nodes


def test_the_button_from_failure_runs_what_failed_and_what_was_skipped(stack) -> None:
    stack.on("dagster")
    with stack.edited("models/marts/fct_daily_category_sales.sql", "select no_such_column from {{ ref('fct_orders') }}\n"):
        stack.invoke("run", code=1)
        (failed,) = ask(stack, NEWEST)["runsOrError"]["results"]
        _, before, why = outcome(stack, failed["runId"])
    assert 'column "no_such_column" does not exist' in why
    assert "Traceback" not in why
    answer = ask(stack, REEXECUTE, parent=failed["runId"])["launchRunReexecution"]
    state, after, why = outcome(stack, answer["run"]["runId"])
    assert state == "SUCCESS", why
    assert set(after) == {name for name, status in before.items() if status in ("error", "fail", "skipped")}
    assert {"fct_daily_category_sales", "rpt_sales_summary"} <= set(after)


def test_the_page_cannot_replace_dbt(stack) -> None:
    stack.on("dagster")
    config = {"resources": {"dbt": {"config": {"dbt_executable": "/nowhere"}}}}
    selector = {"repositoryLocationName": "dbt", "repositoryName": "__repository__", "jobName": "freshness"}
    launched = ask(stack, LAUNCH, params={"selector": selector, "runConfigData": config})["launchRun"]
    assert outcome(stack, launched["run"]["runId"])[0] == "SUCCESS"


@pytest.mark.long
def test_tables_are_shown_with_rows_columns_and_lineage_on_demand(stack, reference) -> None:
    stack.on("dagster")
    stack.invoke("down")
    stack.invoke("up", "--orch", "dagster", DAGSTER_TABLE_METADATA="true")
    try:
        stack.invoke("run")
        found = {}
        for node in ask(stack, TABLES)["assetNodes"]:
            for materialization in node["assetMaterializations"]:
                found[node["assetKey"]["path"][-1]] = {entry["label"]: entry for entry in materialization["metadataEntries"]}
    finally:
        stack.invoke("up", "--orch", "dagster")
    assert {name: found[name]["dagster/row_count"]["intValue"] for name in reference} == {
        name: rows for name, (rows, _) in reference.items()
    }
    lineage = {column["columnName"]: column["columnDeps"] for column in found["fct_daily_sales"]["dagster/column_lineage"]["lineage"]}
    assert all("dagster/column_schema" in found[name] for name in reference)
    assert any(lineage.values())
