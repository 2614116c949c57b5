"""A DAG that `bench.local` adds to Airflow: Cosmos in its local mode, with a dbt process for each node."""

import os
from datetime import datetime, timezone
from pathlib import Path

from cosmos.airflow.dag import DbtDag
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode

from rundbt import project_files

manifest, _ = project_files.ensure_manifest()

dag = DbtDag(
    dag_id="bench",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    default_args={"retries": 0},
    project_config=ProjectConfig(dbt_project_path=project_files.project_dir(), manifest_path=manifest, install_dbt_deps=False),
    profile_config=ProfileConfig(os.environ["DBT_PROFILE"], os.environ["DBT_TARGET"], Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml")),
    execution_config=ExecutionConfig(
        execution_mode=ExecutionMode.LOCAL, invocation_mode=InvocationMode.SUBPROCESS, dbt_executable_path=project_files.DBT
    ),
    # Cosmos looks for the last parse in the project's folder, but nothing writes there.
    operator_args={"dbt_cmd_flags": ["--partial-parse-file-path", str(manifest.with_name("partial_parse.msgpack"))]},
    render_config=RenderConfig(
        load_method=LoadMode.DBT_MANIFEST,
        should_detach_multiple_parents_tests=True,  # otherwise a test of two models runs before the second one is built
    ),
)
