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
from airflow.sdk import DAG
from cosmos.airflow.dag import DbtDag
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, InvocationMode, LoadMode, TestBehavior
from cosmos.operators.local import DbtBuildLocalOperator, DbtSourceLocalOperator, DbtTestLocalOperator

import builds
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


class DbtBuild(DbtBuildLocalOperator):
    """``dbt build`` in a folder in which the executor finds its log, see `builds`."""

    def execute(self, context: Any, **kwargs: Any) -> None:
        """Run dbt."""
        folder = builds.begin(self.dag_id, str(context["ti"].id))
        places = ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
        self.dbt_cmd_flags = [*self.dbt_cmd_flags, *places]
        self.callback = lambda _, context: push_results(str(folder), context)
        super().execute(context, **kwargs)

    def calculate_openlineage_events_completes(self, *args: Any) -> bool:
        """Do without lineage events, which take a second, and which nobody here listens to."""
        return False


def _build_dag(job: Job, manifest: Path, settings: dict[str, Any]) -> DAG:
    """One task runs ``dbt build``; beside it, one task for each seed, snapshot and model shows how that node fares.

    The tasks beside it are Cosmos' own, each of which would run dbt for its node. `box_executor.py` spares them that.
    """
    dag = DbtDag(
        **settings,
        max_active_tasks=128,  # as many as Airflow's pool has room for: boxes wait for dbt, not for one another
        project_config=ProjectConfig(dbt_project_path=project.project_dir(), manifest_path=manifest, install_dbt_deps=False),
        profile_config=_profile(),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.LOCAL, invocation_mode=InvocationMode.SUBPROCESS, dbt_executable_path=project.DBT
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.NONE,  # one may span several models; all are in the build
            emit_datasets=False,
            node_converters={DbtResourceType.EXPOSURE: lambda **_: None},  # nothing to run
            normalize_task_id=lambda node: node.name,
            normalize_task_display_name=lambda node: node.name,
        ),
        operator_args={"queue": builds.QUEUE, "dbt_cmd_flags": _dbt_flags(manifest)},
    )
    with dag:
        DbtBuild(
            task_id=builds.TASK,
            task_display_name="dbt build",
            priority_weight=1000,  # before the boxes
            weight_rule="absolute",
            project_dir=str(project.project_dir()),
            profile_config=_profile(),
            invocation_mode=InvocationMode.SUBPROCESS,
            dbt_executable_path=project.DBT,
            dbt_cmd_flags=[*job.dbt_args[1:], *_dbt_flags(manifest, log_level="info")],
            install_deps=False,
            emit_datasets=False,
        )
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
            dbt_executable_path=project.DBT,
            dbt_cmd_flags=[*job.dbt_args[len(operator.base_cmd) :], *_dbt_flags(manifest)],
            install_deps=False,
            emit_datasets=False,
            callback=push_results,
        )
    return dag


def _profile() -> ProfileConfig:
    return ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml"))


def _dbt_flags(manifest: Path, log_level: str = "error") -> list[str]:
    """What every dbt command gets: the DAG's own parse, so that nothing is parsed twice, and how to write its log."""
    partial_parse = ["--partial-parse-file-path", str(manifest.with_name("partial_parse.msgpack"))]
    log = ["--log-level-file", log_level, "--log-format-file", "json", "--log-file-max-bytes", "0"]
    return [*partial_parse, *log]


def push_results(project_dir: str, context: Any) -> None:
    """Cosmos calls this when dbt has ended, well or not, with the folder that dbt worked in."""
    log = Path(project_dir, "logs", "dbt.log")
    nodes = []
    for name in ("run_results.json", "sources.json"):
        artifact = Path(project_dir, "target", name)
        if artifact.exists():
            nodes += results.node_records(json.loads(artifact.read_text()))
    error = None
    if not nodes and log.exists():  # dbt did not get as far as the first node, and its log says why
        said = "\n".join(json.loads(line)["info"]["msg"] for line in log.read_text().splitlines())
        _, found, text = said.rpartition("Encountered an error:")
        error = text.strip() if found else None
    context["ti"].xcom_push(RESULTS_KEY, {"nodes": nodes, "error": error})
