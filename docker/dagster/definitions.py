"""The dbt project as Dagster assets and asset checks, with its jobs and their schedules."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster
from dagster import (
    AssetExecutionContext,
    AssetKey,
    Config,
    DefaultScheduleStatus,
    Definitions,
    OpExecutionContext,
    ResourceDefinition,
    ScheduleDefinition,
    define_asset_job,
    get_dagster_logger,
    in_process_executor,
    op,
)
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliInvocation, DbtCliResource, DbtProject, dbt_assets

import manifest
import report
import workers
from alert import alert
from rundbt import alerts, jobs, project_files

MANIFEST_FILE, FINGERPRINT = project_files.ensure_manifest()
PROJECT = DbtProject(
    project_files.project_dir(),
    target_path=project_files.target_dir(),
    profiles_dir=os.environ["DBT_PROFILES_DIR"],
    profile=os.environ["DBT_PROFILE"],
    target=os.environ["DBT_TARGET"],
)
DBT = DbtCliResource(
    PROJECT, dbt_executable=project_files.DBT_OF_A_RUN, global_config_flags=["--log-level", "info", "--log-level-file", "none"]
)
# run_job.py reads these tags: which state of the project is loaded, and, in a job's "dbt/op", which op takes a run's options.
TAGS = {"dbt/fingerprint": FINGERPRINT}


OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")  # the owners that Dagster accepts
TAKEN = set(jobs.load())


def free(name: str) -> str:
    """A free name for an op, with _ added until no job or op has it: in Dagster, each name must be unique."""
    while name in TAKEN:
        name += "_"
    TAKEN.add(name)
    return name


MANIFEST = manifest.adapted(json.loads(MANIFEST_FILE.read_bytes()))


class Translator(DagsterDbtTranslator):
    """dagster-dbt's translator, but an asset without a group gets its schema as the group, and names that only dbt accepts are adapted."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        """The key from ``meta.dagster``, or else from dbt's names; Dagster makes an output's or an input's name from it."""
        path = super().get_asset_key(dbt_resource_props).path
        return AssetKey([re.sub(r"[^\w.-]", "_", part, flags=re.ASCII) for part in path])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The group from dbt or ``meta.dagster``, or else the schema, as the project configures it."""
        schema = dbt_resource_props["config"].get("schema") or dbt_resource_props["schema"]
        return re.sub(r"[^\w/]", "_", super().get_group_name(dbt_resource_props) or schema, flags=re.ASCII)

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:
        """The owners that Dagster accepts: a team, or an email address."""
        return [owner for owner in super().get_owners(dbt_resource_props) or () if OWNER.fullmatch(owner)]


TRANSLATOR = Translator(
    DagsterDbtTranslatorSettings(
        enable_code_references=True,
        enable_source_tests_as_checks=True,
        enable_source_metadata=False,  # it identifies a source with the seed of its table, which a model may have done already
    )
)
# For a command whose assets dagster-dbt does not know: without code references, which need the assets.
PLAIN = Translator()


class RunOptions(Config):
    """What a person can choose for a run, see `rundbt.jobs.Options`.

    Attributes:
        select: nodes, as for dbt's ``--select``. Assets that are picked on the page are built as well.
        vars: variables for dbt.
        full_refresh: whether incremental models and seeds are built from nothing.
    """

    select: str = ""
    # Pydantic copies the default for each instance.
    vars: dict[str, Any] = {}  # noqa: RUF012
    full_refresh: bool = False


def commands(job: jobs.Job, options: RunOptions) -> list[list[str]]:
    """The dbt commands of a run."""
    return [list(args) for args in job.asked(jobs.Options(**options.model_dump())).commands]


def cli(dbt: DbtCliResource, args: list[str], target: Path) -> DbtCliInvocation:
    """Start a dbt command with its own selection."""
    return dbt.cli(args, manifest=MANIFEST, dagster_dbt_translator=PLAIN, target_path=target, raise_on_error=False)


def everything() -> str:
    """The selection of everything that `dbt build` builds: fqn:*, the default, leaves out saved queries, and dbt selects nothing for ""."""
    if not report.TABLE_METADATA:
        return ""
    return "fqn:* resource_type:saved_query" if MANIFEST["saved_queries"] else "fqn:*"


try:

    @dbt_assets(
        manifest=MANIFEST,
        project=PROJECT,
        select=everything(),
        name=free("dbt"),
        dagster_dbt_translator=TRANSLATOR,
    )
    def dbt_models(context: AssetExecutionContext, dbt: DbtCliResource, config: RunOptions) -> Iterator[Any]:
        """Build what is selected; in a re-execution from failure, what failed and what was skipped."""
        workers.note(context.instance, context.run_id)
        target = report.folder(context.run_id)
        if failed := report.failed_before(context, MANIFEST):
            invocation = cli(dbt, ["retry", "--state", failed], target)
        else:
            *before, build = commands(jobs.load().get(context.job_name, jobs.BUILD), config)
            for args in before:
                yield from report.stream(cli(dbt, args, target), last=False)
            if config.select and report.TABLE_METADATA:  # with a context, dbt would build these and all that `everything` selects
                invocation = cli(dbt, build, target)
                invocation.context, invocation.project = context, PROJECT
            else:
                invocation = dbt.cli(build, context=context, target_path=target, raise_on_error=False)
        yield from report.stream(invocation)

except dagster.DagsterInvalidDefinitionError as error:  # for example, the names of two models become the same
    get_dagster_logger().warning("Dagster shows no assets of this project, and runs each job as one op: %s", error)
    dbt_models = None


def dbt_job(job: jobs.Job) -> Any:
    """A job that runs dbt commands, whatever they select."""

    @op(name=free(f"dbt_{job.name}"), out={})
    def dbt_commands(context: OpExecutionContext, dbt: DbtCliResource, config: RunOptions) -> Iterator[Any]:
        workers.note(context.instance, context.run_id)
        failed = report.failed_before(context, MANIFEST)
        to_run = [["retry", "--state", failed]] if failed else commands(job, config)
        for args in to_run:
            invocation = cli(dbt, args, report.folder(context.run_id))
            yield from report.stream(invocation, last=args is to_run[-1])

    @dagster.job(name=job.name, description=job.description, tags={**TAGS, "dbt/op": dbt_commands.name})
    def dbt_job() -> None:
        dbt_commands()

    return dbt_job


def dagster_job(job: jobs.Job) -> Any:
    """The job; an asset job if it builds the whole project."""
    if not job.whole or dbt_models is None:
        return dbt_job(job)
    tags = {**TAGS, "dbt/op": dbt_models.op.name}
    return define_asset_job(job.name, selection=[dbt_models], description=job.description, tags=tags)


JOBS = {job.name: dagster_job(job) for job in jobs.load().values()}

defs = Definitions(
    assets=[dbt_models] if dbt_models else [],
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
    sensors=[*([alert] if alerts.wanted() else []), *([workers.watch] if os.environ.get("WORKERS") else [])],
    # Hard-coded: a configurable resource would let the page set another executable.
    resources={"dbt": ResourceDefinition.hardcoded_resource(DBT)},
    executor=in_process_executor,  # a run is one op: a separate process for it would import all of Dagster again
)
