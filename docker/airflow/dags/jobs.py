"""The Airflow DAGs ``daily``, ``smoke`` and so on: one for each job."""

from airflow.sdk import get_parsing_context

from dag_factory import make_dag
from switchyard import jobs

wanted = get_parsing_context().dag_id  # a task needs no other DAG than its own
for job in jobs.load().values():
    if wanted in (None, job.name):
        globals()[job.name] = make_dag(job)
