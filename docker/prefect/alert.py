"""The flow's hook for a failed flow run, in the flow run's process."""

from __future__ import annotations

import os
from itertools import takewhile
from typing import Any

from prefect import get_client

from rundbt import alerts, project_files, results

FAILED = "dbt reports failures: "  # the beginning of a state's message when dbt's results have the failed nodes


def send(flow: Any, flow_run: Any, state: Any) -> None:
    """Send a message; Prefect calls this when a flow run enters a failed state.

    Not if this attempt was marked as crashed before, as by the server while the worker had no connection: the server has sent a message.

    Args:
        flow: the flow.
        flow_run: the flow run.
        state: the state that it has entered.
    """
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(flow_run.id)
    attempt = takewhile(lambda entered: not entered.is_running(), reversed(states))
    if any(entered.is_crashed() for entered in attempt):
        return
    why = state.message or state.name
    folder = project_files.target_dir() / "flow-runs" / str(flow_run.id)
    failed = results.failures(results.read(folder)) if why.startswith(FAILED) else []
    url = f"{os.environ['SWITCHYARD_UI_URL']}/v2/runs/flow-run/{flow_run.id}"
    alerts.send(alerts.message(flow_run.parameters.get("job", flow_run.name), "Prefect", url, failed, why))
