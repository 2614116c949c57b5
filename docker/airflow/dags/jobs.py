"""The Airflow DAGs ``daily``, ``smoke`` and so on: one for each job, and a second one for runs with options if it has a task per node."""

from airflow.sdk import get_parsing_context

from dag_factory import by_node, make_dag
from run_job import custom_dag
from rundbt import jobs

wanted = get_parsing_context().dag_id  # a task needs only its own DAG
for job in jobs.load().values():
    if wanted in (None, job.name):
        globals()[f"dag_{job.name}"] = make_dag(job)  # no other name in this file begins with dag_
    if by_node(job) and wanted in (None, custom_dag(job.name)):
        globals()[f"dag_{custom_dag(job.name)}"] = make_dag(job, custom=True)
