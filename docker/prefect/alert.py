"""What Prefect does when a flow run has failed: a hook of the flow, in its process."""

from __future__ import annotations

import os
from typing import Any

from rundbt import alerts, project_files, results

FAILED = "dbt reports failures: "  # how the message of a state begins whose nodes are in dbt's results


def send(flow: Any, flow_run: Any, state: Any) -> None:
    """Send a message; Prefect calls this when a run enters a state that is Failed.

    Args:
        flow: Prefect's.
        flow_run: the flow run.
        state: the state that it has entered.
    """
    why = state.message or state.name
    folder = project_files.target_dir() / "flow-runs" / str(flow_run.id)
    failed = results.failures(results.read(folder)) if why.startswith(FAILED) else []
    url = f"{os.environ['SWITCHYARD_UI_URL']}/v2/runs/flow-run/{flow_run.id}"
    alerts.send(alerts.message(flow_run.parameters.get("job", flow_run.name), "Prefect", url, failed, why))
