"""Ends a process that has a lot in memory quickly."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def run(main: Callable[[], object]) -> NoReturn:
    """Call ``main``, and end this process with the exit code that Python would give it.

    Two steps of Python's own exit are left out: it frees all memory piece by piece, which takes Airflow's API server seconds, and waits
    for every thread, which may never end in Prefect's runner.
    """
    code: object = 1
    interrupted = False
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        interrupted = isinstance(error, KeyboardInterrupt)
    finally:
        with suppress(Exception):
            atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
        except OSError:  # nobody reads it
            code = 120  # as Python does
        with suppress(OSError):
            sys.stderr.flush()
        if interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))
