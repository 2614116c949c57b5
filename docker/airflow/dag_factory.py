"""How a job becomes an Airflow DAG, with Astronomer Cosmos; dags/jobs.py calls `make_dag`.

This file is on the import path of dbt, too, which takes every module whose name begins with ``dbt_`` for a plugin of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

# Cosmos's own package exports everything, and importing it all takes seconds in every task: import modules.
from airflow.sdk import DAG, Param, get_parsing_context
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior, TestIndirectSelection
from cosmos.dbt.graph import DbtNode
from cosmos.operators import local

import alert
from results_xcom import WATCHED, push_results
from run_job import PARSE_FAILED, custom_dag
from rundbt import alerts, project_files
from rundbt.jobs import Job, Options, schedules_enabled

# See pools.json: one dbt at a time over one warehouse, and room in the executor for it, however many tasks wait for it.
DBT, WATCHERS = "dbt", "watchers"
# What a person can choose for a run, also in the page's form: see `rundbt.jobs.Options`.
OPTIONS = {
    "select": Param("", type="string", description="Nodes, as for dbt's --select, instead of those that the job selects."),
    "vars": Param({}, type="object", description="Variables for dbt."),
    "full_refresh": Param(False, type="boolean", description="Build incremental models and seeds from nothing."),
}
FLAGS = "{{ dbt_flags(job, manifest, %d, params) }}"
OPERATORS = (
    local.DbtBuildLocalOperator,
    local.DbtRunLocalOperator,
    local.DbtSeedLocalOperator,
    local.DbtSnapshotLocalOperator,
    local.DbtSourceLocalOperator,
    local.DbtTestLocalOperator,
)


def make_dag(job: Job, custom: bool = False) -> DAG:
    """The DAG of ``job``, tagged with the fingerprint of the dbt project that it was made from.

    Args:
        job: the job.
        custom: whether it is the one for runs with options of a person's own, beside a DAG that has a task for each node: Cosmos' tasks
            would wait for nodes that such a run leaves out.

    Raises:
        RuntimeError: dbt cannot parse the project, outside of a task. Airflow shows the text as the file's import error.
    """
    wanted = project_files.fingerprint()
    try:
        manifest, fingerprint = project_files.ensure_manifest()
    except project_files.ParseFailed as error:
        parsed = project_files.last_manifest()
        if not get_parsing_context().dag_id or not parsed:
            raise RuntimeError(f"{PARSE_FAILED} {wanted}:\n{error}") from None
        manifest, fingerprint = parsed  # a task of a run that began before the edit
    nodes = by_node(job) and not custom
    with DAG(
        dag_id=custom_dag(job.name) if custom else job.name,
        description=job.description,
        schedule=job.cron if schedules_enabled() and not custom else None,
        start_date=start_of(job),
        catchup=False,
        max_active_runs=1,
        tags=["dbt", f"dbt:{fingerprint}"],
        params={} if nodes else OPTIONS,
        user_defined_macros={"dbt_flags": dbt_flags, "job": job, "manifest": manifest},
        render_template_as_native_obj=not nodes,  # the flags are a list
        on_failure_callback=alert.send if alerts.wanted() else None,
    ) as dag:
        last = len(job.before)
        tasks = [
            single_task(job, number, [*map(literal, dbt_flags(job, manifest, number, {}))] if nodes else FLAGS % number)
            for number in range(last)
        ]
        tasks.append(build(job, manifest) if nodes else single_task(job, last, FLAGS % last))
        for one, next_ in pairwise(tasks):
            one >> next_
    return dag


def start_of(job: Job) -> datetime:
    """Since when the job is scheduled; Airflow takes the schedule's time zone from there."""
    return datetime(2025, 1, 1, tzinfo=ZoneInfo(job.timezone))


def by_node(job: Job) -> bool:
    """Whether the job's build is a task for each node of dbt, and not one task."""
    return job.whole and os.environ["INTEGRATION"] != "lean"


def build(job: Job, manifest: Path) -> DbtTaskGroup:
    """One task runs ``dbt build``; beside it, each seed, snapshot and model has a task that watches it, and one for its tests."""
    return DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(dbt_project_path=project_files.project_dir(), manifest_path=manifest, install_dbt_deps=False),
        profile_config=profile(),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=project_files.DBT_OF_A_RUN,
            setup_operator_args={"pool": DBT},
            test_indirect_selection=TestIndirectSelection.BUILDABLE,  # run again, a test that spans two models is the later one's
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.AFTER_EACH,
            node_converters={DbtResourceType.EXPOSURE: lambda **_: None},  # nothing to run
            normalize_task_id=task_ids(manifest),
        ),
        operator_args={
            "full_refresh": job.full_refresh,
            "pool": WATCHERS,
            "deferrable": False,
            "poke_interval": 1,
            "dbt_cmd_flags": [*map(literal, job.flags), *common_flags(manifest)],
            "callback": push_results,
        },
    )


def task_ids(manifest: Path) -> Callable[[DbtNode], str]:
    """Cosmos' own task ids, without what Airflow refuses in an id, and unique.

    Where two nodes would have one, as two packages' nodes of one name, or the models ``a.b`` and ``a_b``, the package stands before it, and
    where that is the same too, or is the name of a group of tasks, the beginning of a hash after it.
    """

    def plain(unique_id: str) -> str:
        kind, _, name = unique_id.split(".", 2)
        return re.sub(r"[^\w-]", "_", f"{name}_{'run' if kind == 'model' else kind}", flags=re.ASCII)

    nodes = json.loads(manifest.read_bytes())["nodes"]
    ids = Counter(map(plain, nodes))
    groups = {unique_id.split(".", 2)[2].replace(".", "_") for unique_id, node in nodes.items() if node["resource_type"] in WATCHED}
    in_package = Counter((node["package_name"], plain(unique_id)) for unique_id, node in nodes.items())

    def task_id(node: DbtNode) -> str:
        found = plain(node.unique_id)
        package = f"{node.package_name}_" if ids[found] > 1 else ""
        again = in_package[node.package_name, found] > 1 or package + found in groups
        return package + found + (f"_{hashlib.sha256(node.unique_id.encode()).hexdigest()[:6]}" if again else "")

    return task_id


def single_task(job: Job, number: int, flags: list[str] | str) -> Any:
    """One task for a dbt command of ``job``, with its flags, or the template that makes them."""
    args = job.commands[number]
    return operator_of(args)(
        task_id="dbt" if number == len(job.before) else f"dbt_{number + 1}",
        task_display_name=" ".join(("dbt", *args)),
        pool=DBT,
        project_dir=str(project_files.project_dir()),
        profile_config=profile(),
        invocation_mode=InvocationMode.SUBPROCESS,
        dbt_executable_path=project_files.DBT_OF_A_RUN,
        install_deps=False,
        dbt_cmd_flags=flags,
        callback=push_results,
    )


def operator_of(args: tuple[str, ...]) -> Any:
    """Cosmos' operator for a dbt command."""
    return next(kind for kind in OPERATORS if kind.base_cmd[0] == args[0])


def dbt_flags(job: Job, manifest: Path, number: int, params: Mapping[str, Any]) -> list[str]:
    """The flags of a dbt command of ``job``; Airflow calls it as a macro, with the params of the run.

    Raises:
        rundbt.jobs.JobsError: they are not what `Options` takes.
    """
    args = job.asked(Options.among(params)).commands[number]
    return [*args[len(operator_of(args).base_cmd) :], *common_flags(manifest)]


def profile() -> ProfileConfig:
    """The dbt profile."""
    return ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml"))


def common_flags(manifest: Path) -> list[str]:
    """Flags of every dbt: it parses nothing twice, logs what Cosmos reads, and leaves its results and errors where `results_xcom` does."""
    partial_parse = ["--partial-parse-file-path", str(manifest.with_name("partial_parse.msgpack"))]
    logs = ["--log-level", "info", "--log-path", "logs", "--log-level-file", "error", "--log-format-file", "json"]
    return [*partial_parse, "--target-path", "target", *logs]


def literal(word: str) -> str:
    """A word of a command, for a field in which Airflow renders templates."""
    return f"{{% raw %}}{word}{{% endraw %}}" if "{" in word else word
