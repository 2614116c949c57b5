"""``launch.py RECORD FACTS COMMAND...``: record this process in the file RECORD, then become COMMAND.

The process writes the record itself, before it becomes the command. So no process runs without a record, even if the one that
started it is killed right after.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil


def birth(pid: int) -> str:
    """The boot in which a process was started, and the clock ticks from that boot to its start (proc_pid_stat(5), field 22).

    The creation time is computed from these at each query, so it changes when the clock is set. Empty if there is no such
    process, and on other systems, which store the time of its start.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return f"{boot()} {fields[19].decode()}"


def boot() -> str:
    """The id of the machine's current boot, on Linux; empty if a sandbox hides it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def write_record(path: Path, facts: dict[str, Any], pid: int) -> None:
    """Record which process this is: another program may get the same process id later."""
    text = json.dumps({**facts, "pid": pid, "birth": birth(pid), "created": psutil.Process(pid).create_time()})
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__" and sys.platform != "win32":  # on Windows, `switchyard.runtimes.native.processes` starts the command itself
    record, facts, *command = sys.argv[1:]
    # A command in the background of a shell ignores SIGINT, and its children inherit that: then none of them could be stopped gently.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    write_record(Path(record), json.loads(facts), os.getpid())
    os.execv(command[0], command)
