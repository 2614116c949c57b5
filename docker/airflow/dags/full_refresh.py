"""The Airflow DAG ``full_refresh``."""

from dag_factory import make_dag
from switchyard.jobs import JOBS

dag = make_dag(JOBS["full_refresh"])
