"""Airflow DAGs such as ``daily-schedule``: each triggers a job on its schedule once a person turns it on.

The jobs' own DAGs are never paused, so that a manual run starts at once. With SCHEDULES_ENABLED they have the schedules.
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from dag_factory import start_of
from rundbt import jobs

for job in jobs.load().values():
    if job.cron and not jobs.schedules_enabled():
        with DAG(
            dag_id=f"{job.name}-schedule",
            description=f"Trigger {job.name} on its schedule. Turn it on to use it.",
            schedule=job.cron,
            start_date=start_of(job),
            catchup=False,
            max_active_runs=1,
            is_paused_upon_creation=True,
            tags=["schedule"],
        ) as dag:
            TriggerDagRunOperator(task_id="trigger", trigger_dag_id=job.name)
        globals()[dag.dag_id] = dag
