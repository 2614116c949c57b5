"""The dbt project as Dagster assets and asset checks, with the four jobs and their schedules."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetObservation,
    AssetSelection,
    Config,
    DefaultScheduleStatus,
    Definitions,
    Failure,
    InitResourceContext,
    MaterializeResult,
    MetadataValue,
    RunConfig,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    multi_asset_check,
    resource,
)
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from pydantic import Field

from dbt_process import DbtProcess
from manifest import load_manifest
from switchyard import project, results
from switchyard.jobs import JOBS, schedules_enabled

NODE = "dbt"  # the metadata entry that holds a node's record; run_job.py reads it

MANIFEST, FINGERPRINT = load_manifest()
NODES = {**MANIFEST["nodes"], **MANIFEST["sources"], **MANIFEST["unit_tests"]}


class Translator(DagsterDbtTranslator):
    """Names and descriptions are dagster-dbt's own; assets are grouped by layer."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The layer: the configured schema, and for the models that people read, ``reports``."""
        if dbt_resource_props["name"].startswith("rpt_"):
            return "reports"
        return dbt_resource_props["config"].get("schema") or dbt_resource_props["schema"]


TRANSLATOR = Translator()


class DbtConfig(Config):
    """What dbt is asked to do; as it stands, what a click on "Materialize" does."""

    args: list[str] = Field(
        default=list(JOBS["daily"].dbt_args),
        description="The command line after `dbt`. Unless it selects something itself, dbt works on what is selected in Dagster.",
    )


@resource(description="Keeps a connection to Dagster's database, and ends the run's dbt when the run ends.")
def processes(context: InitResourceContext) -> Iterator[ExitStack]:
    """What a run must end before it is over.

    And what it begins with: each of its several hundred events would be written over a new connection, which costs both sides
    more than the event. The webserver keeps its connection for that; this is its switch.

    An interrupt mostly finds `dbt_project` waiting at a ``yield``, where it hears nothing of it: a ``with`` there would be left
    some time after Dagster has called the run canceled. A resource is closed before.
    """
    # Milliseconds for a statement, seconds until the connection is made anew, and connections beside it.
    context.instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=5, max_overflow=20)
    events = context.instance.event_log_storage
    events.has_table = cache(events.has_table)  # which it asks at each materialization, over a connection beside
    with ExitStack() as stack:
        yield stack


@dbt_assets(manifest=MANIFEST, dagster_dbt_translator=TRANSLATOR, name="dbt", required_resource_keys={"processes"})
def dbt_project(context: AssetExecutionContext, config: DbtConfig) -> Iterator[MaterializeResult | AssetCheckResult]:
    """Run dbt, and report every node as soon as it is finished."""
    args = list(config.args)
    if context.is_subset and "--select" not in args:
        args += _selection([*context.selected_asset_keys, *context.selected_asset_check_keys])
    dbt = context.resources.processes.enter_context(DbtProcess(args))
    records = []
    for record in dbt.records():
        records.append(record)
        yield from _report(context, record)
    if not dbt.succeeded():
        raise _failure(dbt, records)


ASSETS: dict[str, AssetKey] = {spec.metadata["dagster_dbt/unique_id"]: spec.key for spec in dbt_project.specs}
CHECKS: dict[str, AssetCheckKey] = {spec.metadata["dagster_dbt/unique_id"]: spec.key for spec in dbt_project.check_specs}
SOURCES = {source: TRANSLATOR.get_asset_key(properties) for source, properties in MANIFEST["sources"].items()}


@multi_asset_check(
    specs=[AssetCheckSpec("freshness", asset=key, description="dbt source freshness") for key in SOURCES.values()],
    required_resource_keys={"processes"},
)
def source_freshness(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
    """Ask dbt how old the raw tables are."""
    dbt = context.resources.processes.enter_context(DbtProcess(JOBS["freshness"].dbt_args))
    records = list(dbt.records())
    succeeded = dbt.succeeded()
    ages = {entry["unique_id"]: entry.get("max_loaded_at") for entry in dbt.artifact("sources.json")["results"]}
    for record in records:
        yield AssetCheckResult(
            asset_key=SOURCES[record["unique_id"]],
            check_name="freshness",
            **_verdict(record),
            metadata=_metadata(record) | {"loaded at": ages[record["unique_id"]] or "never"},
        )
    if not succeeded:
        raise _failure(dbt, records)


def _selection(keys: Sequence[AssetKey | AssetCheckKey]) -> list[str]:
    """The dbt arguments that choose exactly these assets and checks."""
    unique_ids = [unique_id for unique_id, key in (ASSETS | CHECKS).items() if key in keys]
    return ["--indirect-selection", "empty", "--select", *("fqn:" + ".".join(NODES[id]["fqn"]) for id in unique_ids)]


def _report(context: AssetExecutionContext, record: dict[str, Any]) -> Iterator[MaterializeResult | AssetCheckResult]:
    """Tell Dagster about one node: a materialization, a check's result, or else an observation of the node's asset."""
    unique_id, status = record["unique_id"], record["status"]
    if unique_id in ASSETS and status == "success":
        yield MaterializeResult(asset_key=ASSETS[unique_id], metadata=_metadata(record))
    elif CHECKS.get(unique_id) in context.selected_asset_check_keys and status != "skipped":
        key = CHECKS[unique_id]
        yield AssetCheckResult(asset_key=key.asset_key, check_name=key.name, **_verdict(record), metadata=_metadata(record))
    else:
        asset = unique_id if unique_id in ASSETS else NODES[unique_id]["depends_on"]["nodes"][0]
        text = f"{record['kind']} {record['name']}: {record['message'] or status}"
        context.log_event(AssetObservation(asset_key=ASSETS[asset], description=text, metadata=_metadata(record)))


def _verdict(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "passed": record["status"] == "pass",
        "severity": AssetCheckSeverity.WARN if record["status"] == "warn" else AssetCheckSeverity.ERROR,
        "description": record["message"],
    }


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    """The node's record for programs, and its figures as numbers, which Dagster plots over time."""
    rows = {} if record["rows"] is None else {"rows": record["rows"]}
    return {NODE: MetadataValue.json(record), "seconds": record["seconds"], **rows}


def _failure(dbt: DbtProcess, records: list[dict[str, Any]]) -> Failure:
    """What went wrong, in dbt's words: the failed nodes, or when dbt did not come that far, its last errors."""
    failed = [f"{record['name']}: {record['message']}" for record in results.failures(records)]
    return Failure("\n\n".join(failed or dbt.errors) or f"dbt {' '.join(dbt.args)} failed")


def _job(name: str, selection: AssetSelection, config: RunConfig | None = None) -> Any:
    return define_asset_job(
        name,
        selection=selection,
        description=JOBS[name].description,
        tags={"dbt/fingerprint": FINGERPRINT},
        config=config,
    )


def _dbt_job(name: str, selection: AssetSelection) -> Any:
    return _job(name, selection, RunConfig(ops={"dbt": DbtConfig(args=list(JOBS[name].dbt_args))}))


EVERYTHING = AssetSelection.assets(dbt_project) - AssetSelection.checks(source_freshness)
SMOKE = [key for unique_id, key in CHECKS.items() if "smoke" in NODES[unique_id]["tags"]]

jobs = [
    _dbt_job("daily", EVERYTHING),
    _dbt_job("smoke", AssetSelection.checks(*SMOKE)),
    _job("freshness", AssetSelection.checks(source_freshness)),
    _dbt_job("full_refresh", EVERYTHING),
]

defs = Definitions(
    assets=[dbt_project],
    asset_checks=[source_freshness],
    jobs=jobs,
    resources={"processes": processes},
    schedules=[
        ScheduleDefinition(
            job=job,
            cron_schedule=JOBS[job.name].cron,
            execution_timezone="UTC",
            default_status=DefaultScheduleStatus.RUNNING if schedules_enabled() else DefaultScheduleStatus.STOPPED,
        )
        for job in jobs
        if JOBS[job.name].cron
    ],
    executor=in_process_executor,  # dbt schedules its own nodes: a process per step would only add start-up time
)

if sys.platform == "linux":
    import forks

    code = Path(__file__).parent
    loaded = FINGERPRINT, project.fingerprint(code)
    forks.serve(defs, lambda: (project.fingerprint(), project.fingerprint(code)) == loaded)
