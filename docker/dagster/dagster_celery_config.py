"""The configuration of dagster-celery's workers; its app looks for a module with this name."""

import os

import rundbt.celery_alive  # noqa: F401  (for the health check)

broker_url = os.environ["DAGSTER_CELERY_BROKER"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND"]
result_expires = None  # each run has a result, and a run whose result has expired counts as lost, even if it is healthy
broker_connection_retry_on_startup = True
# Each run has its own process, which loads the current project. No run waits at a busy worker while another worker is idle.
worker_max_tasks_per_child = 1
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
worker_redirect_stdouts = False  # Dagster reads dbt's output from the process's own streams
