"""One command at a time: which one waits, for which other, for how long, and what happens to the lock when its holder is killed."""

import errno
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import psutil
import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from bench import rig
from switchyard import command_lock, pipeline, runner
from switchyard.errors import BadConfiguration, Locked
from switchyard.runner import Runner

from ..stacks import command_line, wait_until

HOLDER = """
import sys
from pathlib import Path
from switchyard import command_lock, runner
from switchyard.runner import Runner
with command_lock.held(Path(sys.argv[1]), "switch") as descriptor:
    program = "import time; print('working', flush=True); time.sleep(60)"
    Runner({}, keep=(descriptor,)).follow([sys.executable, "-c", program], lambda line: print(line, flush=True))
"""


@pytest.fixture
def holder(tmp_path, root):
    """A command that holds the lock while a program that it has started works."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        left = psutil.Process(process.pid).children()
        yield process
        for program in left:
            program.kill()
        process.kill()


def test_a_lock_timeout_shows_the_holder(holder, tmp_path, capsys) -> None:
    message = rf"invoke switch \(process {holder.pid}\) is still changing the stack after 0 s"
    with pytest.raises(Locked, match=message), command_lock.held(tmp_path, "down", seconds=0.3):
        pass
    assert f"Waiting for invoke switch (process {holder.pid}) to finish" in capsys.readouterr().out


def test_two_measurements_of_one_checkout_do_not_remove_each_others_stacks(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(rig, "ROOT", tmp_path)
    with command_lock.alone(tmp_path, "measured"), pytest.raises(Locked, match="measured is in use"), rig.rig("native", [], "measured"):
        pass


def test_a_file_instead_of_the_locks_folder_is_reported(tmp_path) -> None:
    (tmp_path / ".stack").touch()
    with pytest.raises(BadConfiguration, match=r"\.stack is not a folder"), command_lock.held(tmp_path, "up"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_file_system_without_locks_is_reported(monkeypatch, tmp_path) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with pytest.raises(BadConfiguration, match="without locks"), command_lock.held(tmp_path, "up", seconds=0):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows passes no lock on to a child")
def test_a_program_whose_command_was_killed_holds_the_lock_until_it_ends(holder, tmp_path) -> None:
    (program,) = psutil.Process(holder.pid).children()
    holder.kill()
    holder.wait()
    with pytest.raises(Locked), command_lock.held(tmp_path, "up", seconds=0.3):
        pass
    program.kill()
    with command_lock.held(tmp_path, "up", seconds=10):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows passes no lock on to a child")
def test_a_program_whose_command_was_killed_completes_its_work(tmp_path, root) -> None:
    go_on, done = tmp_path / "go-on", tmp_path / "done"
    program = f"""
import time
from pathlib import Path
print("working", flush=True)
while not Path({str(go_on)!r}).exists():
    time.sleep(0.01)
print("still working", flush=True)
Path({str(done)!r}).touch()
"""
    command = f"import sys\nfrom switchyard.runner import Runner\nRunner({{}}).follow([sys.executable, '-c', {program!r}], print)"
    with subprocess.Popen([sys.executable, "-u", "-c", command], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        process.kill()
    go_on.touch()
    wait_until(done.exists)


def test_a_task_that_changes_the_stack_takes_the_lock_before_it_looks(tmp_path, monkeypatch) -> None:
    looks = []

    def look(*_: object) -> None:
        with pytest.raises(Locked), command_lock.held(tmp_path, "down", seconds=0):
            pass
        looks.append("locked")

    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "runtime_of", look)
    with tasks.changing(Context(), "up"):
        look()
    assert looks == ["locked"] * 2


@pytest.mark.parametrize(("words", "locked"), [(["build"], True), (["--quiet", "run"], True), (["ls"], False)])
def test_a_dbt_command_that_writes_has_the_lock_until_it_ends(tmp_path, monkeypatch, words, locked) -> None:
    looks = []

    def look(*_: object) -> int:
        try:
            with command_lock.held(tmp_path, "down", seconds=0):
                looks.append("")
        except Locked as error:
            looks.append(error.what)
        return 0

    driver = SimpleNamespace(active=lambda: "dagster", orchestrators={"dagster": None}, dbt=look)
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "runtime_of", lambda _: driver)
    monkeypatch.setattr(pipeline, "active_runs", lambda runtime: look() or [])
    monkeypatch.setattr(sys, "argv", ["invoke", "dbt", *words])
    with pytest.raises(Exit):
        tasks.run_dbt(Context())
    assert [look.startswith("invoke dbt (process") for look in looks] == ([True, True] if locked else [False])


def test_a_command_that_stops_an_orchestrator_waits_until_a_runs_end_was_read(tmp_path, root) -> None:
    follower = f"""
import sys
from pathlib import Path
from switchyard import command_lock, runner
with command_lock.following(Path({str(tmp_path)!r})):
    print("following", flush=True)
    sys.stdin.read()
"""
    argv = [sys.executable, "-c", follower]
    with subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "following\n"
        with command_lock.following(tmp_path):  # several may at once
            pass
        waiting = threading.Thread(target=command_lock.wait_for_followers, args=(tmp_path,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_dead_holder_holds_nothing(tmp_path) -> None:
    (tmp_path / ".stack").mkdir()
    (tmp_path / ".stack" / "lock-holder").write_text("invoke up (process 1)")
    with command_lock.held(tmp_path, "up", seconds=0):
        assert "invoke up (process" in (tmp_path / ".stack" / "lock-holder").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows inherits permissions from the folder")
def test_a_folder_that_others_can_read_is_made_private(tmp_path) -> None:
    (tmp_path / ".stack").mkdir()
    (tmp_path / ".stack").chmod(0o755)
    with command_lock.held(tmp_path, "up"):
        assert (tmp_path / ".stack").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(
    ("deaf", "ends"),
    [("SIGUSR1", "SIGINT"), ("SIGINT", "SIGTERM"), ("SIGINT, SIGTERM", "SIGKILL")],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_program_that_takes_too_long_is_ended(monkeypatch, tmp_path, deaf, ends) -> None:
    monkeypatch.setattr(runner, "SIGNAL_TIMEOUT_S", 0.5)
    script = f"""
import subprocess
import sys
import time
from signal import *
subprocess.Popen([sys.executable, "-c", "from signal import *; signal(SIGINT, SIG_DFL); import time; time.sleep(61)", {str(tmp_path)!r}])
signal(SIGINT, SIG_DFL)  # the tests themselves may have been started in a script's background
for number in [{deaf}]:
    signal(number, SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
    output: list[str] = []
    found = Runner({}).follow([sys.executable, "-c", script], output.append, seconds=5)
    assert (found.code, output) == (-getattr(signal, ends), ["up"])
    wait_until(lambda: not any(str(tmp_path) in command_line(process) for process in psutil.process_iter()))  # its child


HANDED_OVER = """
import sys
from switchyard.runner import Runner
program = "import signal, time; signal.signal(2, lambda *_: (time.sleep(0.6), print('cancelled', flush=True), sys.exit(3)));"
program = "import sys;" + program + "print('working', flush=True); time.sleep(60)"
sys.exit(Runner({}).hand_over([sys.executable, "-c", program]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a terminal's signal")
def test_an_interrupt_is_for_the_program_in_the_terminal(root) -> None:
    """psql and dbt cancel their queries when they receive it."""
    argv = [sys.executable, "-c", HANDED_OVER]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "working\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "cancelled\n"
        assert process.wait() == 3
