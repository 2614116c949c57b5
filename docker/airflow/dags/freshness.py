"""The Airflow DAG ``freshness``."""

from dag_factory import make_dag
from switchyard.jobs import JOBS

dag = make_dag(JOBS["freshness"])
