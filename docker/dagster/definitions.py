"""The dbt project as Dagster assets and asset checks, with the four jobs and their schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    DefaultScheduleStatus,
    Definitions,
    OpExecutionContext,
    RunConfig,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    job,
    op,
)
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets

import report
from switchyard import project
from switchyard.jobs import JOBS, schedules_enabled

MANIFEST, FINGERPRINT = project.ensure_manifest()
PROJECT = DbtProject(project.project_dir(), target_path=project.target_dir())
TAGS = {"dbt/fingerprint": FINGERPRINT}  # run_job.py reads there which state of the project is loaded


class Translator(DagsterDbtTranslator):
    """Names and descriptions are dagster-dbt's own; assets are grouped by layer."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The layer: the configured schema, and for the models that people read, ``reports``."""
        if dbt_resource_props["name"].startswith("rpt_"):
            return "reports"
        return dbt_resource_props["config"].get("schema") or dbt_resource_props["schema"]


class BuildConfig(Config):
    """What a person can choose beside the assets."""

    full_refresh: bool = False


@dbt_assets(
    manifest=MANIFEST,
    project=PROJECT,
    select="",  # all that `dbt build` builds: the default, fqn:*, leaves saved queries out
    name="dbt",
    dagster_dbt_translator=Translator(
        DagsterDbtTranslatorSettings(
            enable_code_references=True,
            enable_source_tests_as_checks=True,
            enable_source_metadata=False,  # it takes a source for the seed of its table, of which a model may know already
        )
    ),
)
def dbt_models(context: AssetExecutionContext, dbt: DbtCliResource, config: BuildConfig) -> Iterator[Any]:
    """Build what is selected; in a re-execution from failure, what failed and what was skipped."""
    target = report.folder(context.run_id)
    if failed := report.failed_before(context):
        invocation = dbt.cli(["retry", "--state", failed], manifest=MANIFEST, target_path=target, raise_on_error=False)
    else:
        args = ["build", "--full-refresh"] if config.full_refresh else ["build"]
        invocation = dbt.cli(args, context=context, target_path=target, raise_on_error=False)
    yield from report.stream(invocation)


def dbt_job(name: str) -> Any:
    """A job that runs the one dbt command of `switchyard.jobs`, whatever that selects."""

    @op(name=f"dbt_{name}", out={})
    def dbt_command(context: OpExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        failed = report.failed_before(context)
        args = ["retry", "--state", failed] if failed else JOBS[name].dbt_args
        invocation = dbt.cli(args, manifest=MANIFEST, target_path=report.folder(context.run_id), raise_on_error=False)
        yield from report.stream(invocation)

    @job(name=name, description=JOBS[name].description, tags=TAGS)
    def dbt_job() -> None:
        dbt_command()

    return dbt_job


jobs = [
    define_asset_job("daily", selection=[dbt_models], description=JOBS["daily"].description, tags=TAGS),
    dbt_job("smoke"),
    dbt_job("freshness"),
    define_asset_job(
        "full_refresh",
        selection=[dbt_models],
        description=JOBS["full_refresh"].description,
        tags=TAGS,
        config=RunConfig(ops={"dbt": BuildConfig(full_refresh=True)}),
    ),
]

defs = Definitions(
    assets=[dbt_models],
    jobs=jobs,
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
    resources={"dbt": DbtCliResource(PROJECT, dbt_executable=project.DBT_OF_A_RUN, global_config_flags=["--log-level-file", "none"])},
    executor=in_process_executor,  # a run is one op: a process for it would import all of Dagster a second time
)
