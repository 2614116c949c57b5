"""The Prefect flow that runs dbt, as in https://docs.prefect.io/integrations/prefect-dbt: every dbt node gets a task run.

``attempt.py`` publishes the results that `invoke run` reads.
"""

from typing import Any, Literal

from prefect import flow, runtime
from prefect.states import Completed, Failed, State
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings

import alert
from attempt import Attempt
from rundbt import alerts, jobs

JOBS = jobs.load()


@flow(
    name="dbt",
    description="Run a job: dbt over the whole project or a part of it, with one task run per dbt node.",
    on_failure=[alert.send] if alerts.wanted() else None,  # deploy.py has the alert for a crashed one
)
def dbt(  # the jobs are the project's
    job: Literal[tuple(JOBS)],  # type: ignore[valid-type]
    select: str = "",
    vars: dict[str, Any] | None = None,
    full_refresh: bool = False,
) -> State:
    """Run the dbt commands of a job; on a retry, ``dbt retry`` of what failed and what was skipped.

    Args:
        job: its name.
        select: nodes, as for dbt's ``--select``, instead of the job's own selection.
        vars: variables for dbt.
        full_refresh: build incremental models and seeds from nothing.
    """
    alerts.hide()
    asked = JOBS[job].asked(jobs.Options(select, vars or {}, full_refresh))
    with Attempt(runtime.flow_run.id, runtime.flow_run.run_count) as attempt:
        runner = PrefectDbtRunner(settings=PrefectDbtSettings(target_path=attempt.target), raise_on_failure=False)
        for args in attempt.commands(asked):
            result = runner.invoke(args)
            attempt.collect()
            if not result.success:
                break
    if result.success:
        return Completed(message=f"{len(attempt.records)} dbt nodes")
    return Failed(message=f"{alert.FAILED}{', '.join(attempt.failures())}")
