"""``deploy.py COMMAND...``: bring the work pool, the deployments and the automations up to date, and become COMMAND, a worker."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from prefect import get_client
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.events import EventTrigger, ResourceSpecification
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Cron
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

import flow
from rundbt import alerts, api, jobs, project_files

POOL = "dbt"
ONE_RUN_AT_A_TIME = 1  # two dbt runs at once would rebuild the same tables
# With an explicit command, the worker does not first start another Python that looks for a workspace.
COMMAND = "python -m prefect.engine"
if shutil.which("setpriv"):
    # On Linux, a flow run ends with its worker, so that it cannot overlap with the next one. It is killed, because PrefectDbtRunner can
    # hang after SIGTERM; PostgreSQL rolls back the open transactions of a killed client.
    COMMAND = f"setpriv --pdeathsig KILL {COMMAND}"
# Without variables, so that the page cannot give a flow run another command or environment.
TEMPLATE = {"job_configuration": {"command": COMMAND, "stream_output": True}, "variables": {"type": "object", "properties": {}}}
# On Kubernetes (`invoke eject`), each flow run of the pool has its own pod, and a file has the pods' template.
TYPE = os.environ.get("WORK_POOL_TYPE", ProcessWorker.type)
if file := os.environ.get("WORK_POOL_TEMPLATE"):
    TEMPLATE = json.loads(Path(file).read_bytes())
    TEMPLATE["variables"]["properties"]["namespace"]["default"] = os.environ["POD_NAMESPACE"]
SILENCE_TIMEOUT_S = 90 if ProcessWorker.type == TYPE else 600  # seconds; a pod may wait for a node or its image
ATTEMPTS = 5  # at a set-up that other workers may do at the same time
ZOMBIES = "Crash zombie flow runs"
CRASHES = "Alert of crashed flow runs"
BLOCK = "alert"  # has the webhook's address
# The same message as in `rundbt.alerts.message`, as a template for Prefect.
CRASHED = """{"text": {{ (flow_run.parameters.job ~ " failed on Prefect\\n" ~ flow_run.state.message ~ "\\n"
    ~ "%s/v2/runs/flow-run/" ~ flow_run.id) | replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;")
    | tojson }}}""" % os.environ.get("SWITCHYARD_UI_URL")  # noqa: UP031  (the template itself has braces)
FLOW_RUNS = ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})
# The events after which a live flow run always sends another one: it sends a heartbeat every 30 seconds, Prefect's shortest interval.
SIGNS_OF_LIFE = {"prefect.flow-run.heartbeat", "prefect.flow-run.Pending", "prefect.flow-run.Running", "prefect.flow-run.Cancelling"}


def make_pool() -> None:
    """Create the work pool, and set how many flow runs it runs at a time."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL, type=TYPE, base_job_template=TEMPLATE))
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=ONE_RUN_AT_A_TIME, base_job_template=TEMPLATE))


def is_on(job: str) -> bool:
    """Whether to turn the schedule of ``job`` on: follows SCHEDULES_ENABLED if that has changed, otherwise keeps the page's setting."""
    if Variable.get("schedules_enabled") == jobs.schedules_enabled():
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):
            if schedules := client.read_deployment_by_name(f"dbt/{job}").schedules:
                return any(schedule.active for schedule in schedules)
    return jobs.schedules_enabled()


def forget_due(deployment: UUID) -> None:
    """Delete the flow runs that a schedule created in advance: a worker would run those past due, even if the schedule is off by now."""
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=ours):
            if run.auto_scheduled:
                client.delete_flow_run(run.id)


def deploy() -> None:
    """Create or update a deployment for each job, and delete those of jobs that were removed, or belong to another project."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=["dbt"]))):
            if deployment.name not in flow.JOBS:
                client.delete_deployment(deployment.id)
    source = flow.dbt.from_source(source=str(Path(__file__).parent), entrypoint="flow.py:dbt")
    for job in flow.JOBS.values():
        on = bool(job.cron) and is_on(job.name)
        deployed = source.deploy(
            name=job.name,
            description=job.description,
            parameters={"job": job.name},
            work_pool_name=POOL,
            schedules=[Cron(job.cron, timezone=job.timezone, active=on)] if job.cron else [],
            print_next_steps=False,
            ignore_warnings=True,
        )
        if not on:
            forget_due(deployed)
    Variable.set("schedules_enabled", jobs.schedules_enabled(), overwrite=True)


def automations(name: str) -> list[Automation]:
    """The automations of this name, of which the server accepts any number, in an order that is the same for all workers."""
    with get_client(sync_client=True) as client:
        known = [Automation(**automation.model_dump()) for automation in client.read_automations_by_name(name)]
    return sorted(known, key=lambda automation: automation.id)


def automate(name: str, trigger: EventTrigger, action: ChangeFlowRunState | CallWebhook) -> None:
    """Create an automation, or update it if it differs: an update makes the trigger forget the events of runs in progress.

    Of several with this name, only the first is kept. Workers that start at once may each create one; the last to do so then sees all.
    """
    if not automations(name):
        Automation(name=name, trigger=trigger, actions=[action]).create()
    kept, *others = automations(name)
    for other in others:
        other.delete()
    if (kept.trigger, kept.actions) != (trigger, [action]):
        kept.trigger, kept.actions = trigger, [action]
        kept.update()


def watch_for_zombies() -> None:
    """Have the server crash a flow run whose process or worker has ended, as Prefect's documentation describes."""
    trigger = EventTrigger(
        after=SIGNS_OF_LIFE,
        expect={"prefect.flow-run.*"},
        match=FLOW_RUNS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_TIMEOUT_S),
    )
    why = f"It gave no sign of life for {SILENCE_TIMEOUT_S} seconds: its worker was killed, or lost its connection."
    automate(ZOMBIES, trigger, ChangeFlowRunState(state=StateType.CRASHED, message=why))


def alert_of_crashes() -> None:
    """Have the server send the alert for a crashed flow run: there may be no process left to run the flow's hook."""
    if alerts.wanted():
        webhook = Webhook(url=os.environ[alerts.VARIABLE], headers={"Content-Type": "application/json"})
        trigger = EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=FLOW_RUNS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )
        automate(CRASHES, trigger, CallWebhook(block_document_id=webhook.save(BLOCK, overwrite=True), payload=CRASHED))
    else:
        for automation in automations(CRASHES):
            automation.delete()
        with suppress(ValueError):  # there is none
            Webhook.delete(BLOCK)


def forget_workers() -> None:
    """Delete offline workers from the server: each container has a new name."""
    headers = api.basic_auth(os.environ["PREFECT_API_AUTH_STRING"])
    with get_client(sync_client=True) as client:
        offline_workers = [worker.name for worker in client.read_workers_for_work_pool(POOL) if worker.status == WorkerStatus.OFFLINE]
    for name in offline_workers:
        with suppress(api.ApiError):  # another worker has done it
            api.request("DELETE", f"{os.environ['PREFECT_API_URL']}/work_pools/{POOL}/workers/{quote(name)}", headers=headers)


def set_up() -> None:
    """Bring everything on the server up to date; retried, because another worker may do the same at the same moment."""
    for attempt in range(ATTEMPTS):
        try:
            make_pool()
            deploy()
            watch_for_zombies()
            alert_of_crashes()
            forget_workers()
            return
        except (ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.random())  # so that they do not collide again


if __name__ == "__main__":
    project_files.share_files()
    api.wait_for_answer(f"{os.environ['PREFECT_API_URL']}/health", 120, "Prefect's server")
    if "SWITCHYARD_REMOTE" not in os.environ:  # a worker on another machine may have an older release
        set_up()
    command = sys.argv[1:]
    if "--name" not in command:
        command += ["--name", socket.gethostname()]
    project_files.exec_command(command, os.environ)
