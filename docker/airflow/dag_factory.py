"""How a job becomes an Airflow DAG, with Astronomer Cosmos. The files in dags/ call `make_dag`, one each.

This file is on the import path of dbt, too, which takes every module whose name begins with ``dbt_`` for a plugin of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# Cosmos's own package exports everything, and importing it all takes seconds in every task: import modules.
from airflow.sdk import DAG
from cosmos.airflow.task_group import DbtTaskGroup
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior, TestIndirectSelection
from cosmos.dbt.graph import DbtNode
from cosmos.operators.local import DbtBuildLocalOperator, DbtSourceLocalOperator, DbtTestLocalOperator

from results_xcom import push_results
from run_job import PARSE_FAILED
from switchyard import project
from switchyard.jobs import Job, schedules_enabled

# See pools.json: one dbt at a time over one warehouse, and room in the executor for it, however many tasks wait for it.
DBT, WATCHERS = "dbt", "watchers"
START = datetime(2025, 1, 1, tzinfo=timezone.utc)


def make_dag(job: Job) -> DAG:
    """The DAG of ``job``, tagged with the fingerprint of the dbt project that it was made from.

    Raises:
        RuntimeError: dbt cannot parse the project. Airflow shows the text as the file's import error.
    """
    wanted = project.fingerprint()
    try:
        manifest, fingerprint = project.ensure_manifest()
    except project.ParseFailed as error:
        raise RuntimeError(f"{PARSE_FAILED} {wanted}:\n{error}") from None
    with DAG(
        dag_id=job.name,
        description=job.description,
        schedule=job.cron if schedules_enabled() else None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        tags=["dbt", f"dbt:{fingerprint}"],
        render_template_as_native_obj=lean(),  # what is selected is a list, or nothing
    ) as dag:
        if job.dbt_args[0] == "build" and not lean():
            build(job, manifest)
        else:
            single_task(job, manifest)
    return dag


def lean() -> bool:
    """Whether a build is one task, and not a task for each node of dbt."""
    return os.environ["INTEGRATION"] == "lean"


def build(job: Job, manifest: Path) -> None:
    """One task runs ``dbt build``; beside it, each seed, snapshot and model has a task that watches it, and one for its tests."""
    DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(dbt_project_path=project.project_dir(), manifest_path=manifest, install_dbt_deps=False),
        profile_config=profile(),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=project.DBT_OF_A_RUN,
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
            "full_refresh": "--full-refresh" in job.dbt_args,
            "pool": WATCHERS,
            "deferrable": False,
            "poke_interval": 1,
            **common(manifest),
        },
    )


def task_ids(manifest: Path) -> Callable[[DbtNode], str]:
    """Cosmos' own task ids, made unique where two packages have a node of one name, and without what Airflow refuses in an id."""
    names = Counter((node["resource_type"], node["name"]) for node in json.loads(manifest.read_bytes())["nodes"].values())

    def task_id(node: DbtNode) -> str:
        kind = node.resource_type.value
        package = f"{node.package_name}_" if names[kind, node.resource_name] > 1 else ""
        return re.sub(r"[^\w.-]", "_", f"{package}{node.name}_{'run' if kind == 'model' else kind}", flags=re.ASCII)

    return task_id


def single_task(job: Job, manifest: Path) -> None:
    """One task for the whole dbt command: for one that builds nothing, and in the lean form for a build too."""
    operators = (DbtBuildLocalOperator, DbtTestLocalOperator, DbtSourceLocalOperator)
    operator = next(kind for kind in operators if kind.base_cmd[0] == job.dbt_args[0])
    arguments = common(manifest)
    if operator is DbtBuildLocalOperator:
        arguments["select"] = "{{ (dag_run.conf or {}).get('select') }}"
    operator(
        task_id="dbt",
        task_display_name=" ".join(("dbt", *job.dbt_args)),
        pool=DBT,
        project_dir=str(project.project_dir()),
        profile_config=profile(),
        invocation_mode=InvocationMode.SUBPROCESS,
        dbt_executable_path=project.DBT_OF_A_RUN,
        install_deps=False,
        **{**arguments, "dbt_cmd_flags": [*job.dbt_args[len(operator.base_cmd) :], *arguments["dbt_cmd_flags"]]},
    )


def profile() -> ProfileConfig:
    """The dbt profile."""
    return ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml"))


def common(manifest: Path) -> dict[str, Any]:
    """Arguments of every task that runs dbt: it parses nothing twice, and pushes its results."""
    partial_parse = ["--partial-parse-file-path", str(manifest.with_name("partial_parse.msgpack"))]
    log = ["--log-level-file", "error", "--log-format-file", "json"]
    return {"dbt_cmd_flags": [*partial_parse, *log], "callback": push_results}
