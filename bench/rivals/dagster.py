# Added to Dagster's definitions by `bench.rivals`: the job under the executor that a job has unless told otherwise.
from dagster import multiprocess_executor

defs = Definitions.merge(defs, Definitions(jobs=[define_asset_job("bench", EVERYTHING, executor_def=multiprocess_executor)]))  # noqa: F821
