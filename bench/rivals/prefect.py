"""Given to a Python where Prefect runs dbt: the project by prefect-dbt's own runner, a task run for each node, in this process.

The last line that is printed is how many seconds the flow run took, without the queue and the start of a process.
"""

import os
import time
from pathlib import Path

from prefect import flow
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings

folder = os.environ["DBT_PROJECT_DIR"]
target = Path(os.environ["SWITCHYARD_TARGET_PATH"], "bench")  # where `bench.bare_dbt` has left the parse


@flow(name="bench")
def build() -> None:
    """`dbt build`."""
    settings = PrefectDbtSettings(project_dir=folder, profiles_dir=os.environ["DBT_PROFILES_DIR"], target_path=target)
    PrefectDbtRunner(settings=settings).invoke(["build", "--log-path", str(target), "--log-level-file", "none"])


began = time.perf_counter()
build()
print(time.perf_counter() - began)
