"""The dbt project as Dagster assets and asset checks, with its jobs and their schedules."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import dagster
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
    op,
)
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets

import report
from switchyard import jobs, project

MANIFEST, FINGERPRINT = project.ensure_manifest()
PROJECT = DbtProject(
    project.project_dir(),
    target_path=project.target_dir(),
    profiles_dir=os.environ["DBT_PROFILES_DIR"],
    profile=os.environ["DBT_PROFILE"],
    target=os.environ["DBT_TARGET"],
)
TAGS = {"dbt/fingerprint": FINGERPRINT}  # run_job.py reads there which state of the project is loaded


class Translator(DagsterDbtTranslator):
    """All is dagster-dbt's own, but that an asset without a group is in that of its schema."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The group that dbt or ``meta.dagster`` names, or else the schema, as the project configures it."""
        schema = dbt_resource_props["config"].get("schema") or dbt_resource_props["schema"]
        return super().get_group_name(dbt_resource_props) or re.sub(r"\W", "_", schema, flags=re.ASCII)


class BuildConfig(Config):
    """What a person can choose beside the assets.

    Attributes:
        full_refresh: whether incremental models and seeds are built from nothing.
        flags: more flags for ``dbt build``, such as ``["--vars", "{day: 2026-01-01}"]``.
        before: dbt commands that run first, as the job has them.
    """

    full_refresh: bool = False
    # Pydantic gives each its own.
    flags: list[str] = []  # noqa: RUF012
    before: list[list[str]] = []  # noqa: RUF012


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
        for args in config.before:
            yield from report.stream(dbt.cli(args, manifest=MANIFEST, target_path=target, raise_on_error=False), last=False)
        args = ["build", *(["--full-refresh"] if config.full_refresh else []), *config.flags]
        invocation = dbt.cli(args, context=context, target_path=target, raise_on_error=False)
    yield from report.stream(invocation)


def dbt_job(job: jobs.Job) -> Any:
    """A job that runs dbt commands, whatever they select."""

    @op(name=f"dbt_{job.name}", out={})
    def dbt_commands(context: OpExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        failed = report.failed_before(context)
        commands = [["retry", "--state", failed]] if failed else job.commands
        for args in commands:
            invocation = dbt.cli(args, manifest=MANIFEST, target_path=report.folder(context.run_id), raise_on_error=False)
            yield from report.stream(invocation, last=args is commands[-1])

    @dagster.job(name=job.name, description=job.description, tags=TAGS)
    def dbt_job() -> None:
        dbt_commands()

    return dbt_job


def dagster_job(job: jobs.Job) -> Any:
    """The job: over assets, where it builds the whole project."""
    if not job.whole:
        return dbt_job(job)
    config = BuildConfig(full_refresh=job.full_refresh, flags=list(job.flags), before=[list(args) for args in job.before])
    return define_asset_job(job.name, selection=[dbt_models], description=job.description, tags=TAGS, config=RunConfig(ops={"dbt": config}))


JOBS = {job.name: dagster_job(job) for job in jobs.load().values()}

defs = Definitions(
    assets=[dbt_models],
    jobs=list(JOBS.values()),
    schedules=[
        ScheduleDefinition(
            job=JOBS[job.name],
            cron_schedule=job.cron,
            execution_timezone=job.timezone,
            default_status=DefaultScheduleStatus.RUNNING if jobs.schedules_enabled() else DefaultScheduleStatus.STOPPED,
        )
        for job in jobs.load().values()
        if job.cron
    ],
    resources={"dbt": DbtCliResource(PROJECT, dbt_executable=project.DBT_OF_A_RUN, global_config_flags=["--log-level-file", "none"])},
    executor=in_process_executor,  # a run is one op: a process for it would import all of Dagster a second time
)
