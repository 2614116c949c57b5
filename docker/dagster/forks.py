"""The processes of runs as forks of one that has Dagster and the definitions in memory. Only for Linux.

Dagster's code server starts a new Python for each run, which takes longer to import all that than dbt takes to build a small
project. The server has it in memory, but has threads and connections too, with which a fork is not safe. So it forks once, when
it has loaded the definitions and before it serves anybody: multiprocessing's own fork server, from which the runs come.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from typing import Any

from dagster import Definitions

from switchyard.warm import end_with_parent, freeze

SPAWN = multiprocessing.get_context("spawn")


class Forked(multiprocessing.get_context("forkserver").Process):
    """A run's process, forked; when the fork server ends, it gets a Ctrl-C."""

    server = 0  # its process id, in it and so in its forks

    def run(self) -> None:
        """In the new process: do what it is for."""
        end_with_parent(self.server or os.getppid(), signal.SIGINT)
        super().run()


def serve(definitions: Definitions, is_current: Callable[[], bool]) -> None:
    """When this is a code server, that is ``dagster api grpc``: have its runs forked from what is in memory now.

    Args:
        definitions: what is served; they are resolved first, or else each run would do that.
        is_current: whether what is in memory still is what the files say; when not, a run gets a new Python.
    """
    is_code_server = sys.argv[1:3] == ["api", "grpc"] and multiprocessing.parent_process() is None
    if not is_code_server or len(os.listdir("/proc/self/task")) > 1:
        return
    definitions.get_repository_def().load_all_definitions()
    freeze()
    resource_tracker.ensure_running()
    start, util.spawnv_passfds = util.spawnv_passfds, fork  # by which the fork server is started
    try:
        forkserver.ensure_running()
    except OSError:  # the path of the folder for its socket may be too long
        return
    finally:
        util.spawnv_passfds = start
    spawned = SPAWN.Process

    def process(*args: Any, **kwargs: Any) -> BaseProcess:
        return (Forked if is_current() else spawned)(*args, **kwargs)

    SPAWN.Process = process  # from which Dagster's server has the processes of runs


def fork(_: object, args: Sequence[str], descriptors: object) -> int:
    """Fork a process for what multiprocessing starts as ``python -c CODE``, and return its id."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            end_with_parent(parent, signal.SIGTERM)
            Forked.server = os.getpid()
            forkserver._forkserver.__init__()  # as in a new Python; the one here is in the middle of its work, and locked
            exec(args[-1], {})
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid
