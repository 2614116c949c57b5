"""Serves the flow as four deployments, one per job.

Prefect's runner starts a new Python for each flow run, in which importing Prefect and dbt and reading the parsed project
take longer than dbt's work on a project of this size. On Linux this process, which has all of that in memory, forks the
runner, and then for each flow run a process that goes on as that new Python would: with the environment that the runner
made for it, in Prefect's own ``prefect.engine``. Elsewhere a fork is not safe, or not there, and the runner starts its Pythons.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import anyio.to_thread
from prefect import get_client, serve
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import StateType
from prefect.runner import _starter_engine
from prefect.schedules import Cron
from prefect.states import Crashed

import flow
from switchyard import api, ending, project
from switchyard.jobs import JOBS, schedules_enabled
from switchyard.warm import end_with_parent, freeze


def run() -> None:
    """Take over from the worker before this one as soon as the server is there, and serve the deployments until a signal comes."""
    api.wait_for(server_is_healthy, 120, "Prefect's server", every=0.2)
    close_interrupted_runs()
    serve(
        *(
            flow.dbt.to_deployment(
                name=job.name,
                description=job.description,
                parameters={"job": job.name},
                schedules=[Cron(job.cron, timezone="UTC", active=schedules_enabled())] if job.cron else [],
            )
            for job in JOBS.values()
        ),
        limit=1,  # two dbt runs at once would rebuild the same tables under each other
        print_starting_message=False,
        query_seconds=0.5,
    )


def server_is_healthy() -> bool | None:
    """True when it is, and None while it is not."""
    try:
        return api.request("GET", f"{os.environ['PREFECT_API_URL']}/health", timeout=5)
    except api.ApiError:
        return None


def close_interrupted_runs() -> None:
    """End what a worker before this one left behind when it was killed; nobody else does, and it would look alive for ever."""
    of_this_flow = FlowFilter(name={"any_": [flow.FLOW]})
    alive = {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}}
    state = Crashed(message="The worker was stopped.")
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_filter=of_this_flow, flow_run_filter=FlowRunFilter(state=alive)):
            client.set_flow_run_state(run.id, state, force=True)
        for run in client.read_task_runs(flow_filter=of_this_flow, task_run_filter=TaskRunFilter(state=alive)):
            client.set_task_run_state(run.id, state, force=True)


def fork(channel: Connection) -> int:
    """Fork a process that ends with this one, and has not the end of the channel that is this one's; 0 in the new one."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        channel.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        end_with_parent(parent, signal.SIGTERM)
    return pid


def fork_runs(channel: Connection, runner: int) -> dict[str, str]:
    """Fork a process for each environment that comes through the channel, one after the other, until the runner ends.

    Returns:
        In a forked process, its environment. This process itself ends here, as the runner did.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(runner, number))
    while True:
        if flow.parsed.refresh():
            freeze()
        try:
            environ = channel.recv()
        except EOFError:
            end_as(os.waitpid(runner, 0)[1])
        pid = fork(channel)
        if pid == 0:
            return environ
        channel.send(pid)
        ended, status = os.wait()
        while ended not in (pid, runner):
            ended, status = os.wait()
        if ended == runner:
            end_as(status)
        channel.send(os.waitstatus_to_exitcode(status))


def end_as(status: int) -> NoReturn:
    """End with the exit code of the process that left ``status``."""
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


class Forked:
    """A forked process, as far as Prefect's runner wants to know."""

    def __init__(self, channel: Connection, environ: dict[str, str]) -> None:
        self._channel = channel
        channel.send(environ)
        self.pid: int = channel.recv()
        self.returncode: int | None = None

    def wait(self) -> None:
        """Wait until it ends."""
        self.returncode = self._channel.recv()


async def run_forked(channel: Connection, command: list[str], *, env: dict[str, str], task_status: Any, task_status_handler: Any, **_: Any):
    """Stands for the runner's ``run_process``: run ``python -m prefect.engine`` in a forked process, to its end."""
    process = await anyio.to_thread.run_sync(Forked, channel, env)
    task_status.started(task_status_handler(process))
    try:
        await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        raise


def main() -> None:
    """Be the worker, one of its flow runs, or the process that forks them."""
    project.adopt_baked()
    if sys.platform != "linux":
        run()
        return
    freeze()
    ours, runners = multiprocessing.Pipe()
    runner = fork(ours)
    if runner == 0:
        _starter_engine.run_process = partial(run_forked, runners)
        ending.run(run)
    runners.close()
    environ = fork_runs(ours, runner)
    os.environ.clear()
    os.environ.update(environ, PREFECT__FLOW_ENTRYPOINT="flow.dbt")
    del sys.modules["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
