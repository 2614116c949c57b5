"""Reports more about a dbt run than dagster-dbt's own events: each node's result, and dbt's error messages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dagster import AssetKey, AssetObservation, Failure, MetadataValue, OpExecutionContext
from dagster_dbt import DbtCliInvocation
from dagster_dbt.core.dbt_event_iterator import DbtEventIterator

from rundbt import results

RESULTS = AssetKey("dbt_results")  # run_job.py reads a run's observation of it
# Whether dagster-dbt can import dbt (start.py), and queries the warehouse for each table's metadata.
TABLE_METADATA = os.environ.get("DAGSTER_TABLE_METADATA") == "true"
CANCEL_TIMEOUT_S = 20  # seconds that dbt has to cancel its queries


def folder(run_id: str) -> Path:
    """The folder of a run's dbt artifacts, next to Dagster's own files of the run."""
    return Path(os.environ["DAGSTER_HOME"], "storage", run_id, "dbt")


def kept(target: Path) -> Path:
    """The folder that keeps the results of a dbt that was not interrupted; an interrupted one leaves out the nodes it did not reach."""
    return target.with_name("dbt-results")


def failed_before(context: OpExecutionContext, manifest: dict[str, Any]) -> str | None:
    """For a re-execution from failure, the folder of that failed run's results; None when `dbt retry` cannot run what is left."""
    if context.run.tags.get("dagster/is_resume_retry") != "true" or not context.run.parent_run_id:
        return None
    failed = kept(folder(context.run.parent_run_id))
    return str(failed) if results.retryable(results.read(failed), manifest) else None


def stream(invocation: DbtCliInvocation, last: bool = True) -> Iterator[Any]:
    """Yield dagster-dbt's events of a dbt command, and then one with the result of each node.

    Args:
        invocation: the command, with its own target folder, and without ``raise_on_error``.
        last: whether this is the job's last command. `dbt retry` cannot use the results of an earlier one: if that failed, the later
            commands are still to be run.

    Raises:
        dagster.Failure: dbt failed; the description is dbt's own text.
    """
    target = invocation.target_path
    try:
        events = asset_events(invocation)
        if TABLE_METADATA:
            events = DbtEventIterator(events, invocation).fetch_row_counts().fetch_column_metadata()
        yield from events
        keep_results(target)
    finally:
        end(invocation.process)
        shutil.rmtree(target, ignore_errors=True)  # megabytes
    records = results.read(kept(target))
    if not last:
        shutil.rmtree(kept(target))
    yield AssetObservation(RESULTS, metadata={"dbt": MetadataValue.json(records)})
    if error := invocation.get_error():
        raise Failure(words(records, error), allow_retries=False)


def asset_events(invocation: DbtCliInvocation) -> Iterator[Any]:
    """``invocation.stream()``, without nodes that are not in the loaded manifest: a variable of the run may have enabled one."""
    for event in invocation.stream_raw_events():
        if not event.is_result_event or event.raw_event["data"]["node_info"]["unique_id"] in invocation.manifest["nodes"]:
            yield from event.to_default_asset_events(
                manifest=invocation.manifest,
                dagster_dbt_translator=invocation.dagster_dbt_translator,
                context=invocation.context,
                target_path=invocation.target_path,
                project=invocation.project,
            )


def end(process: subprocess.Popen[bytes]) -> None:
    """End dbt, if it has not ended: an interrupt can come while its output is not being read."""
    if process.poll() is None:
        if os.name == "posix":
            process.send_signal(signal.SIGINT)  # dbt cancels the queries it has on the server
        else:
            process.terminate()
        try:
            process.wait(CANCEL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def keep_results(target: Path) -> None:
    """Keep dbt's results for each node, which `dbt retry` needs."""
    kept(target).mkdir(exist_ok=True)
    for name in ("run_results.json", "sources.json"):
        with suppress(FileNotFoundError):
            os.replace(target / name, kept(target) / name)


def words(records: list[dict[str, Any]], error: Failure) -> str:
    """Why dbt failed: its messages for the failed nodes, or its last errors if it did not reach any node."""
    failed = [f"{record['kind']} {record['name']}: {record['message']}" for record in results.failures(records)]
    _, _, logged = error.description.partition("Errors parsed from dbt logs:")
    return "\n\n".join(failed) or logged.strip() or error.description
