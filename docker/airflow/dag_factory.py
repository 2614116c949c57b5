"""How a job becomes an Airflow DAG. The files in dags/ call `make_dag`, one each.

This file is on the import path of dbt, too, which takes every module whose name begins with ``dbt_`` for a plugin of its own.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# Cosmos's own package exports everything, and importing it all takes seconds in every task: import modules.
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from cosmos.airflow.dag import DbtDag
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import PRODUCER_WATCHER_TASK_ID, DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior
from cosmos.operators.local import DbtSourceLocalOperator, DbtTestLocalOperator

from run_job import PARSE_FAILED, RESULTS_KEY
from switchyard import project, results
from switchyard.jobs import Job, schedules_enabled


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
    settings: dict[str, Any] = {
        "dag_id": job.name,
        "description": job.description,
        "schedule": job.cron if schedules_enabled() else None,
        "start_date": datetime(2025, 1, 1, tzinfo=timezone.utc),
        "catchup": False,
        "max_active_runs": 1,
        "default_args": {"retries": 0},
        "tags": ["dbt", f"dbt:{fingerprint}"],
    }
    return _build_dag(job, manifest, settings) if job.dbt_args[0] == "build" else _single_task_dag(job, settings)


def _build_dag(job: Job, manifest: Path, settings: dict[str, Any]) -> DAG:
    """One task runs ``dbt build``; beside it, one task for each seed, snapshot and model shows how that node fares."""
    dag = DbtDag(
        **settings,
        project_config=ProjectConfig(
            dbt_project_path=project.project_dir(), manifest_path=manifest, install_dbt_deps=False
        ),
        profile_config=_profile(),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.SUBPROCESS,
            setup_operator_args={
                "task_display_name": "dbt build",
                "callback": push_results,
                "pre_execute": build_in_full,
                # Tests get no task of their own (one may span several models), for which Cosmos would leave them
                # out of the build as well. Naming the two kinds here brings them back.
                "dbt_cmd_flags": [
                    *job.dbt_args[1:], "--resource-type", "test", "--resource-type", "unit_test", *_dbt_flags(manifest),
                ],
            },
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.NONE,
            emit_datasets=False,
            node_converters={DbtResourceType.EXPOSURE: lambda **_: None},  # nothing to run
            normalize_task_id=lambda node: node.name,
            normalize_task_display_name=lambda node: node.name,
        ),
        # A deferrable watcher would need a triggerer: one more process of 300 MB, and twice the time.
        operator_args={"deferrable": False, "poke_interval": 1, "dbt_cmd_flags": _dbt_flags(manifest)},
    )  # fmt: skip
    build = dag.get_task(PRODUCER_WATCHER_TASK_ID)
    build.on_failure_callback = ()  # Cosmos would leave a Variable behind for its own kind of second try
    # Airflow judges a run by its last tasks. A failed test stops the tasks after its model, but the last model has none.
    build >> EmptyOperator(task_id="all_passed", dag=dag)
    return dag


def _single_task_dag(job: Job, settings: dict[str, Any]) -> DAG:
    """One task for a dbt command that builds nothing."""
    operator = next(kind for kind in (DbtTestLocalOperator, DbtSourceLocalOperator) if kind.base_cmd[0] == job.dbt_args[0])
    manifest = project.target_dir() / "manifest.json"
    with DAG(**settings) as dag:
        operator(
            task_id="dbt",
            task_display_name=" ".join(("dbt", *job.dbt_args)),
            project_dir=str(project.project_dir()),
            profile_config=_profile(),
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_cmd_flags=[*job.dbt_args[len(operator.base_cmd) :], *_dbt_flags(manifest)],
            install_deps=False,
            emit_datasets=False,
            callback=push_results,
        )
    return dag


def _profile() -> ProfileConfig:
    return ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml"))


def _dbt_flags(manifest: Path) -> list[str]:
    """What every dbt command gets: the DAG's own parse, so that nothing is parsed twice, and a log of nothing but errors."""
    partial_parse = manifest.with_name("partial_parse.msgpack")
    return ["--partial-parse-file-path", str(partial_parse), "--log-level-file", "error", "--log-format-file", "text"]


def build_in_full(context: Any) -> None:
    """Before ``dbt build``: make a second try the same as the first.

    There is one when a person clears the run, or after a stop in the middle of it. Cosmos would skip the build then, and
    have every watcher run its own model, without the tests: a run could pass untested.
    """
    context["ti"].try_number = 1


def push_results(project_dir: str, context: Any) -> None:
    """Cosmos calls this when dbt has ended, well or not, with the scratch folder that dbt worked in."""
    log = Path(project_dir, "logs", "dbt.log")
    nodes = []
    for name in ("run_results.json", "sources.json"):
        artifact = Path(project_dir, "target", name)
        if artifact.exists():
            nodes += results.node_records(json.loads(artifact.read_text()))
    # Without results, dbt did not get as far as the first node, and its log says why.
    error = None if nodes or not log.exists() else log.read_text().rpartition("Encountered an error:")[2].strip()
    context["ti"].xcom_push(RESULTS_KEY, {"nodes": nodes, "error": error})
