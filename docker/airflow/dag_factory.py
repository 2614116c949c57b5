"""Makes an Airflow DAG from a job, with Astronomer Cosmos; dags/jobs.py calls `make_dag`.

This file is also on dbt's import path, so its name must not begin with ``dbt_``: dbt takes such modules for its plugins.
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

# Import from modules: Cosmos's top-level package exports everything, and importing all of it takes seconds in every task.
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

# See pools.json: one dbt at a time per warehouse, and always room for it in the executor, however many tasks wait for it.
DBT, WATCHERS = "dbt", "watchers"
# What a person can choose for a run, also in the page's form: see `rundbt.jobs.Options`.
OPTIONS = {
    "select": Param("", type="string", description="Nodes, as for dbt's --select, instead of the job's own selection."),
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
        custom: whether to make the DAG for runs with a person's options, next to a DAG that has a task for each node: Cosmos' tasks
            would wait for nodes that such a run leaves out.

    Raises:
        RuntimeError: dbt cannot parse the project, and this is not a task. Airflow shows the text as the file's import error.
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
    """The start date of the job's schedule; Airflow takes the schedule's time zone from it."""
    return datetime(2025, 1, 1, tzinfo=ZoneInfo(job.timezone))


def by_node(job: Job) -> bool:
    """Whether the job's build has a task for each dbt node, instead of a single task."""
    return job.whole and os.environ["INTEGRATION"] != "lean"


def build(job: Job, manifest: Path) -> DbtTaskGroup:
    """One task runs ``dbt build``. Each seed, snapshot and model has a task that watches it, and one for its tests."""
    return DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(dbt_project_path=project_files.project_dir(), manifest_path=manifest, install_dbt_deps=False),
        profile_config=profile(),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=project_files.DBT_OF_A_RUN,
            setup_operator_args={"pool": DBT},
            test_indirect_selection=TestIndirectSelection.BUILDABLE,  # on a retry, a test of two models runs with the later one
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
    """Cosmos' own task ids, made unique, and without characters that Airflow refuses.

    Two nodes can have the same id: nodes with the same name in two packages, or the models ``a.b`` and ``a_b``. Such an id gets the
    package's name as a prefix. If it is still not unique, or is the name of a task group, it gets the first digits of a hash as a suffix.
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
    """One task for a dbt command of ``job``, with its flags or the template that renders them."""
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
    """The flags of a dbt command of ``job``; Airflow calls this as a macro, with the params of the run.

    Raises:
        rundbt.jobs.JobsError: the params are not valid `Options`.
    """
    args = job.asked(Options.among(params)).commands[number]
    return [*args[len(operator_of(args).base_cmd) :], *common_flags(manifest)]


def profile() -> ProfileConfig:
    """The dbt profile."""
    return ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml"))


def common_flags(manifest: Path) -> list[str]:
    """Flags of every dbt: it parses nothing twice, logs what Cosmos reads, and leaves its results and errors for `results_xcom`."""
    partial_parse = ["--partial-parse-file-path", str(manifest.with_name("partial_parse.msgpack"))]
    logs = ["--log-level", "info", "--log-path", "logs", "--log-level-file", "error", "--log-format-file", "json"]
    return [*partial_parse, "--target-path", "target", *logs]


def literal(word: str) -> str:
    """A word of a command, escaped for a field in which Airflow renders templates."""
    return f"{{% raw %}}{word}{{% endraw %}}" if "{" in word else word
