"""The Luigi task that runs a job's dbt commands."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import luigi

from rundbt import jobs, project_files


class Dbt(luigi.Task):
    """One run of a job: its commands, one after the other, with a folder for its artifacts."""

    job = luigi.Parameter()
    options = luigi.Parameter()  # as JSON
    run_id = luigi.Parameter()

    @property
    def folder(self) -> Path:
        """Where the run's artifacts are."""
        return Path(os.environ["LUIGI_RUNS"], self.run_id)

    def output(self) -> luigi.LocalTarget:
        """A file that exists once all commands have succeeded."""
        return luigi.LocalTarget(self.folder / "succeeded")

    def run(self) -> None:
        """Run dbt, and interrupt it when somebody cancels the run."""
        job = jobs.load()[self.job].asked(jobs.Options(**json.loads(self.options)))
        for args in job.commands:
            dbt = subprocess.Popen([project_files.DBT_OF_A_RUN, *args, "--target-path", str(self.folder)], cwd=project_files.project_dir())
            interrupted = False
            while dbt.poll() is None:
                if not interrupted and (self.folder / "canceled").exists():
                    dbt.send_signal(signal.SIGINT)
                    interrupted = True
                time.sleep(0.2)
            if dbt.returncode:
                raise RuntimeError(f"dbt {args[0]} ended with {dbt.returncode}")
        Path(self.output().path).touch()
