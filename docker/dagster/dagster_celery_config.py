"""What dagster-celery's workers are configured with; its app looks for a module of this name."""

import os

import rundbt.celery_alive  # noqa: F401  (for the health check)

broker_url = os.environ["DAGSTER_CELERY_BROKER"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND"]
result_expires = None  # a run whose result has expired counts as lost, however well it is; and each has one
broker_connection_retry_on_startup = True
# A run is a process of its own, which loads the project as it is by then; and none waits at a busy worker while another one is idle.
worker_max_tasks_per_child = 1
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
worker_redirect_stdouts = False  # Dagster takes what dbt prints from the process's own streams
