"""``launch.py RECORD FACTS COMMAND...``: note this process in the file RECORD, then become COMMAND.

The note is written by the process itself, before it becomes the command: so nothing ever runs without one, even when
whoever started it is killed in the very next moment.
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
    """The boot in which a process was started, and the clock ticks from there to its start (proc_pid_stat(5), field 22).

    Linux reckons a time of day from these at each question, so it changes when the clock is set. Empty where there is no such
    process, and on other systems, which keep the time of day of its start.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return f"{boot()} {fields[19].decode()}"


def boot() -> str:
    """The id of the machine's present boot, on Linux; empty where a sandbox hides it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def write_record(path: Path, facts: dict[str, Any], pid: int) -> None:
    """Note which process this is: a process id alone may be another program's tomorrow."""
    text = json.dumps({**facts, "pid": pid, "birth": birth(pid), "created": psutil.Process(pid).create_time()})
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__" and sys.platform != "win32":  # where `switchyard.runtimes.native.processes` starts the command itself
    record, facts, *command = sys.argv[1:]
    # A command started in a shell's background ignores Ctrl-C, and so would its children: none of them could be stopped gently.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    write_record(Path(record), json.loads(facts), os.getpid())
    os.execv(command[0], command)
