"""Dagster, with dagster-dbt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compare.products.product import Begun, Key, PageRequest, Picture, Product, Thing
from rundbt import api
from switchyard.errors import StackError


class DagsterProduct(Product):
    """Its GraphQL API, which its page uses: the assets and their checks."""

    read = PageRequest("POST", "/graphql", {"query": "{runsOrError(limit: 1) {__typename}}"})
    write = PageRequest("POST", "/graphql", {"query": 'mutation {terminateRun(runId: "none") {__typename}}'})
    guard = "by Switchyard's guard in front of Dagster's page, which has no sign-in"
    alert = "by a run failure sensor that checks every 10 s (30 by default)"

    ASSETS = """{assetNodes {
      assetKey {path} description groupName kinds tags {key value} dependencyKeys {path}
      owners {... on UserAssetOwner {email} ... on TeamAssetOwner {team}}
      assetChecksOrError {... on AssetChecks {checks {name description}}}
      metadataEntries {...entry} assetMaterializations(limit: 1) {metadataEntries {...entry}}
    }}
    fragment entry on MetadataEntry {
      label ... on TextMetadataEntry {text} ... on MarkdownMetadataEntry {mdStr} ... on IntMetadataEntry {intValue}
      ... on JsonMetadataEntry {jsonString}
      ... on TableSchemaMetadataEntry {schema {columns {name description}}}
    }"""
    NAMES = "{assetNodes {assetKey {path} metadataEntries {label ... on TextMetadataEntry {text}}}}"
    SENSOR = """{sensorOrError(sensorSelector: {
        repositoryLocationName: "dbt", repositoryName: "__repository__", sensorName: "alert"
      }) {... on Sensor {sensorState {ticks(limit: 5) {status}}}}}"""
    LAUNCH = """mutation ($params: ExecutionParams!) {
      launchRun(executionParams: $params) {__typename ... on LaunchRunSuccess {run {runId}} ... on Error {message}}
    }"""
    STATUS = "query ($id: ID!) {runOrError(runId: $id) {... on Run {status}}}"
    RELOAD = 'mutation {reloadRepositoryLocation(repositoryLocationName: "dbt") {__typename}}'

    def ask(self, query: str, **variables: Any) -> Any:
        """The ``data`` of the answer.

        Raises:
            rundbt.api.ApiError: there was no answer, or one with errors.
        """
        answer = api.request("POST", f"{self.url}/graphql", {"query": query, "variables": variables}, self.signed_in, timeout=120)
        if answer.get("errors"):
            raise api.ApiError(answer["errors"][0]["message"])
        return answer["data"]

    def assets(self) -> list[Any]:
        """All assets, with what `node_of` needs."""
        found: list[Any] = self.ask(self.NAMES)["assetNodes"]
        return found

    def described(self) -> list[str]:
        fields = self.ask("{__schema {queryType {fields {name}}}}")["__schema"]["queryType"]["fields"]
        return [field["name"] for field in fields]

    def things(self) -> list[Thing]:
        return read_things(self.ask(self.ASSETS)["assetNodes"])

    def alerts(self) -> bool:
        """Its sensor sees failures only after its first tick."""
        found = self.ask(self.SENSOR)["sensorOrError"]
        return any(tick["status"] in ("SKIPPED", "SUCCESS") for tick in found.get("sensorState", {}).get("ticks", ()))

    def reload(self) -> bool:
        """The button Reload of a code location."""
        self.ask(self.RELOAD)
        return True

    def boxes(self) -> set[str]:
        return {node_of(asset).name for asset in self.assets()}

    def path(self, model: str) -> list[str]:
        """The key of a model's asset.

        Raises:
            StackError: it has no such asset.
        """
        for asset in self.assets():
            if node_of(asset) == Key("model", model):
                found: list[str] = asset["assetKey"]["path"]
                return found
        raise StackError(f"Dagster has no asset of the model {model}.")

    def build(self, model: str) -> Begun:
        job = {"repositoryLocationName": "dbt", "repositoryName": "__repository__", "jobName": self.job}
        params = {"selector": {**job, "assetSelection": [{"path": self.path(model)}]}, "runConfigData": {}}
        launched = self.ask(self.LAUNCH, params=params)["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise StackError(f"Dagster does not launch the run: {launched.get('message') or launched['__typename']}")
        id = launched["run"]["runId"]
        return Begun("its asset is selected", lambda: self.ask(self.STATUS, id=id)["runOrError"].get("status") == "SUCCESS")

    def pictures(self, run: str, name: str) -> list[Picture]:
        path = "/".join(self.path(name))
        return [
            Picture("graph", f"{self.url}/assets/{path}?view=lineage", (("see", f"svg foreignObject:has-text('{name}')"),)),
            Picture("node", f"{self.url}/assets/{path}?view=overview", (("see", "text=Failed in"), ("see", "text=Description"))),
            Picture("log", run, (("see", "text=STEP_FAILURE"),)),
        ]


def node_of(asset: Any) -> Key:
    """The node of an asset: from dagster-dbt's metadata, or, if it has none, the source with the last part of its key."""
    for entry in asset["metadataEntries"]:
        if entry["label"] == "dagster_dbt/unique_id":
            kind, _, name = entry["text"].split(".", 2)
            return Key(kind, name)
    return Key("source", asset["assetKey"]["path"][-1])


def read_things(assets: Iterable[Any]) -> list[Thing]:
    """The assets, and their checks (the tests)."""
    keys = {tuple(asset["assetKey"]["path"]): node_of(asset) for asset in assets}
    found = []
    for asset in assets:
        before = frozenset(keys[path] for one in asset["dependencyKeys"] if (path := tuple(one["path"])) in keys)
        found.append(Thing(node_of(asset), asset, asset["owners"], before))
        found += [Thing(Key("test", check["name"]), check) for check in asset["assetChecksOrError"].get("checks", ())]
    return found


PRODUCT = DagsterProduct
