"""The order of the steps of up, switch, down and clean, with a fake runtime that only records its calls."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from invoke import Context

import tasks
from switchyard import console, lifecycle, pipeline, terminal
from switchyard.errors import (
    AlreadyActive,
    ApiUnusable,
    BadUsage,
    BuildFailed,
    NotHealthy,
    NothingActive,
    PortInUse,
    RunInProgress,
    StillStarting,
)
from switchyard.lifecycle import OnActiveRun
from switchyard.release import image_key
from switchyard.runner import Runner
from switchyard.runtimes.runtime import POSTGRES, Service
from switchyard.settings import Settings

from .test_plan import SETTINGS, SHOP

OLD = replace(SHOP, name="old", title="Old")
NEW = replace(SHOP, name="new", title="New")
RUN = pipeline.ActiveRun(job="daily", run_id="run-1", url="http://localhost/run-1", state="running")


class Fake:
    """A runtime with two orchestrators.

    Attributes:
        state: the state and the health of its service.
        did: the changes that it was called for, in order.
        fails: what it raises at the next call of a method, by the method's name and its first argument.
    """

    name = "fake"
    kind, in_use = "image", False
    cache_note = ""
    beside = None

    def __init__(self, root, active: str | None = None, outdated: Sequence[str] = ()) -> None:
        self.settings = Settings(root, {**SETTINGS.values, "RELEASE_FILE": ""}, "p")
        self.orchestrators = {one.name: one for one in (OLD, NEW)}
        self.runner = Runner({})
        self.images = self.checks = self  # one object records everything, in order
        self.data = Volumes(self)
        self.state = ("running", "healthy")
        self.did: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self._active, self._outdated, self._baked = active, list(outdated), False

    def _do(self, what: str) -> None:
        self.did.append(what)
        if error := self.fails.pop(what, None):
            raise error

    def active(self, services: object = None) -> str | None:
        return self._active

    def as_started(self) -> Fake:
        return self

    def baked(self) -> bool:
        return self._baked

    def services(self) -> list[Service]:
        return [Service("1", "", "shop-api", self._active or "", False, *self.state, "Up")]

    def preflight(self, target, *, baked: bool) -> None:
        self._do(f"check {target.name}")

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        return [name for name in names if name in self._outdated]

    def build(self, names, *, cache: bool = True, on_line) -> None:
        for name in names:
            self._do(f"build {name}")
            self._outdated.remove(name)

    def start_postgres(self, timeout: int, on_line) -> None:
        self._do("start postgres")

    def start(self, target, *, baked: bool, timeout: int, on_line) -> None:
        self._active = target.name
        self._do(f"start {target.name}" + (" baked" if baked else ""))

    def scale(self, target, *, baked: bool, timeout: int, on_line) -> None:
        self._do(f"scale {target.name}")

    def stop_orchestrator(self, on_line) -> None:
        self._do(f"stop {self._active}")
        self._active = None

    def down(self, on_line) -> None:
        self._do("down")
        self._active = None

    def unsupported(self, target) -> str:
        return ""

    def names(self) -> list[str]:
        return ["image"]

    def remove(self, names) -> None:
        self.did += [f"delete {name}" for name in names]


class Volumes:
    """The data of a `Fake`."""

    def __init__(self, fake: Fake) -> None:
        self.names = lambda: ["data"]
        self.remove = fake.remove


@pytest.fixture
def runs(monkeypatch) -> list[pipeline.ActiveRun]:
    """The runs in progress; they end when they are cancelled, and when a command waits for them."""
    found: list[pipeline.ActiveRun] = []
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(sleep=lambda seconds: found.clear(), monotonic=time.monotonic))
    monkeypatch.setattr(pipeline, "active_runs", lambda runtime: list(found))
    monkeypatch.setattr(pipeline, "cancel_runs", lambda runtime: found.clear())
    return found


def begins_a_run_when_built(runtime: Fake, runs: list[pipeline.ActiveRun]) -> None:
    """Start a run, as a schedule might, while something is built or pulled."""
    build = runtime.build

    def slow(names, **options) -> None:
        build(names, **options)
        runs.append(RUN)

    runtime.build = slow


def up(runtime: Fake, target=NEW) -> None:
    """As `invoke up`."""
    lifecycle.up(runtime, target, baked=False, timeout=5)


def switch(runtime: Fake, target=NEW, how: OnActiveRun = OnActiveRun.REFUSE) -> None:
    """As `invoke switch`."""
    lifecycle.switch(runtime, target, baked=False, timeout=5, on_active_run=how)


def test_up_checks_and_builds_before_it_starts(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, outdated=[POSTGRES, "new", "old"])
    up(runtime)
    assert runtime.did == ["check new", "build postgres", "build new", "start postgres", "start new"]


@pytest.mark.parametrize(
    ("workers", "there", "refused"),
    [
        pytest.param("2", False, True, id="the first workers change the services"),
        pytest.param("", True, True, id="so does the removal of all"),
        pytest.param("5", True, False, id="more workers change no other service"),
    ],
)
def test_scale_is_refused_during_a_run_only_if_the_services_change(tmp_path, runs, workers, there, refused) -> None:
    runtime = Fake(tmp_path, active="old")
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "WORKERS": workers})
    runtime.orchestrators["old"] = replace(OLD, scaled=("shop-api" if there else "shop-worker",))
    runs.append(RUN)
    with pytest.raises(RunInProgress) if refused else contextlib.nullcontext():
        lifecycle.scale(runtime, timeout=5, keep=lambda: runtime.did.append("kept"))
    assert runtime.did == ["check old", *([] if refused else ["kept", "scale old"])]


def test_a_change_of_workers_builds_nothing_and_starts_nothing_else(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["old"])
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "WORKERS": "5"})
    runtime.orchestrators["old"] = replace(OLD, scaled=("shop-api",))
    lifecycle.scale(runtime, timeout=5, keep=lambda: None)
    assert runtime.did == ["check old", "scale old"]


def test_the_first_workers_are_refused_if_a_run_cannot_be_ruled_out(tmp_path, runs, monkeypatch) -> None:
    def unusable(runtime: object) -> None:
        raise ApiUnusable("no answer")

    monkeypatch.setattr(pipeline, "active_runs", unusable)
    runtime = Fake(tmp_path, active="old")
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "WORKERS": "2"})
    runtime.orchestrators["old"] = replace(OLD, scaled=("shop-worker",))
    with pytest.raises(ApiUnusable):
        lifecycle.scale(runtime, timeout=5, keep=lambda: runtime.did.append("kept"))
    assert runtime.did == ["check old"]


def test_scale_without_an_orchestrator_shows_what_to_type(tmp_path, runs) -> None:
    runtime = Fake(tmp_path)
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "WORKERS": "3"})
    with pytest.raises(NothingActive) as caught:
        lifecycle.scale(runtime, timeout=5, keep=lambda: None)
    assert caught.value.next == "invoke up --workers 3"


def test_up_refuses_a_second_orchestrator(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old")
    with pytest.raises(AlreadyActive, match="Old is active") as caught:
        up(runtime)
    assert caught.value.next == "invoke switch new"
    assert runtime.did == []


@pytest.mark.parametrize("error", [PortInUse("x"), BuildFailed("x")], ids=["a check", "a build"])
@pytest.mark.parametrize("command", [up, switch])
def test_a_failed_check_or_build_leaves_the_stack_running(tmp_path, runs, command, error) -> None:
    runtime = Fake(tmp_path, active="old" if command is switch else None, outdated=["new"])
    runtime.fails = {"check new" if isinstance(error, PortInUse) else "build new": error}
    with pytest.raises(type(error)):
        command(runtime)
    assert not [done for done in runtime.did if done.startswith(("start", "stop"))]


def test_up_leaves_an_orchestrator_with_a_run_alone(tmp_path, runs) -> None:
    runs.append(RUN)
    runtime = Fake(tmp_path, active="new")
    lifecycle.up(runtime, NEW, baked=False, timeout=5, keep=lambda: runtime.did.append("kept"))
    assert runtime.did == ["kept"]  # for the next start


@pytest.mark.parametrize("state", [("running", "unhealthy"), ("running", "starting"), ("crashed", "")])
def test_up_ends_a_run_only_if_a_service_has_ended(tmp_path, runs, capsys, state) -> None:
    runs.append(RUN)
    runtime = Fake(tmp_path, active="new")
    runtime.state = state
    up(runtime)
    mended = state[0] == "crashed"
    assert runtime.did == (["check new", "start postgres", "start new"] if mended else [])
    assert ("left alone, although not healthy: shop-api" in capsys.readouterr().out) is not mended


def test_another_release_is_refused_during_a_run_and_otherwise_saved_before_the_start(tmp_path, runs) -> None:
    runs.append(RUN)
    runtime = Fake(tmp_path, active="new")
    with pytest.raises(RunInProgress, match="daily") as caught:
        lifecycle.up(runtime, NEW, baked=False, timeout=5, release=True, keep=lambda: runtime.did.append("kept"))
    assert "invoke run --cancel" in caught.value.next
    assert runtime.did == []
    runs.clear()
    lifecycle.up(runtime, NEW, baked=False, timeout=5, release=True, keep=lambda: runtime.did.append("kept"))
    assert runtime.did == ["check new", "kept", "start postgres", "start new"]


@pytest.mark.parametrize("command", [up, switch])
@pytest.mark.parametrize("missing", [True, False])
def test_a_dry_run_ends_at_a_pull_without_which_the_project_is_unknown(tmp_path, runs, command, missing) -> None:
    runtime = Fake(tmp_path, active="old" if command is switch else None, outdated=["new"] if missing else [])
    runtime.runner = Runner({}, dry=True)
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "RELEASE_FILE": "x", image_key("new"): "x/new:1"})
    command(runtime)
    assert runtime.did[:1] == (["build new"] if missing else ["check new"])
    assert (len(runtime.did) == 1) is missing


@pytest.mark.parametrize(("command", "active"), [(up, None), (switch, "new")], ids=["up", "a switch to what is active"])
def test_after_a_timeout_up_is_the_next_step(tmp_path, runs, command, active) -> None:
    runtime = Fake(tmp_path, active=active)
    runtime.fails = {"start new": StillStarting("x")}
    with pytest.raises(StillStarting) as caught:
        command(runtime)
    assert "invoke up --orch new" in caught.value.next


def test_switch_stops_the_old_one_before_it_starts_the_new(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["new"])
    switch(runtime)
    assert runtime.did == ["check new", "build new", "start postgres", "stop old", "start new"]


def test_switch_can_run_the_project_of_the_image(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old")
    lifecycle.switch(runtime, NEW, baked=True, timeout=5)
    assert runtime.did == ["check new", "start postgres", "stop old", "start new baked"]


def test_down_waits_for_a_run_and_stops_the_other_runtime_too(tmp_path, runs, monkeypatch) -> None:
    """A restarted engine has started its containers again, although another orchestrator runs natively."""
    native, docker = Fake(tmp_path, active="old"), Fake(tmp_path, active="new")
    native.beside = docker
    runs.append(RUN)
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "runtime_of", lambda *_: native)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # otherwise the command's signal handlers would stay
    tasks.down(Context(), wait=True)
    assert runs == []
    assert (native.did, docker.did) == (["down"], ["down"])


def test_switch_needs_an_active_orchestrator_and_does_not_stop_its_target(tmp_path, runs) -> None:
    with pytest.raises(NothingActive):
        switch(Fake(tmp_path))
    runtime = Fake(tmp_path, active="new")
    switch(runtime)
    assert "stop new" not in runtime.did


ERRORS = {
    "unhealthy": lambda: NotHealthy("New did not start."),
    "disk": lambda: OSError(5, "broken"),
    "Ctrl-C": KeyboardInterrupt,
}


@pytest.mark.parametrize("was_baked", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("at", ["start postgres", "stop old", "start new"])
def test_a_switch_that_fails_is_rolled_back(tmp_path, runs, at, kind, was_baked) -> None:
    runtime = Fake(tmp_path, active="old")
    runtime._baked = was_baked
    runtime.fails = {at: ERRORS[kind]()}
    with pytest.raises((NotHealthy, lifecycle.StackError, KeyboardInterrupt), match="Old is active again") as caught:
        switch(runtime)
    assert runtime.active() == "old"
    assert runtime.did[-1] == ("start old baked" if was_baked else "start old")
    if at == "start new":
        assert runtime.did[-3:-1] == ["stop new", "start postgres"]
    assert caught.type is {"unhealthy": NotHealthy, "disk": lifecycle.StackError, "Ctrl-C": KeyboardInterrupt}[kind]


def test_a_switch_reports_a_failed_rollback(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old")
    runtime.fails = {"start new": NotHealthy("New did not start."), "start old": NotHealthy("Old is ill.")}
    with pytest.raises(NotHealthy, match=r"could not be started again either: Old is ill\. Next: invoke up --orch old"):
        switch(runtime)


def test_an_interrupt_during_a_rollback_is_answered(tmp_path, runs, capsys) -> None:
    runtime = Fake(tmp_path, active="old")
    runtime.fails = {"start new": NotHealthy("New did not start.")}
    start = runtime.start

    def interrupted(target, **options) -> None:
        if target.name == "old":
            signal.raise_signal(signal.SIGINT)
        start(target, **options)

    runtime.start = interrupted
    with pytest.raises(NotHealthy, match="Old is active again"):
        switch(runtime)
    assert "cannot be interrupted" in capsys.readouterr().out


@pytest.mark.parametrize("command", [lambda runtime, how: switch(runtime, how=how), lifecycle.down], ids=["switch", "down"])
def test_a_run_in_progress_is_refused_or_waited_for_or_cancelled(tmp_path, runs, command) -> None:
    for how in OnActiveRun:
        runs[:] = [RUN]
        runtime = Fake(tmp_path, active="old")
        if how is OnActiveRun.REFUSE:
            with pytest.raises(RunInProgress, match="daily"):
                command(runtime, how)
            assert not [done for done in runtime.did if done.startswith(("start", "stop", "down"))]
        else:
            command(runtime, how)
            assert runs == []
            assert runtime.active() != "old"


def test_a_run_that_begins_during_the_build_is_not_killed(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["new"])
    begins_a_run_when_built(runtime, runs)
    with pytest.raises(RunInProgress):
        switch(runtime)
    assert runtime.active() == "old"


def test_a_run_that_begins_during_the_pull_of_another_release_refuses_it(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["old"])
    begins_a_run_when_built(runtime, runs)
    with pytest.raises(RunInProgress):
        lifecycle.up(runtime, OLD, baked=True, timeout=5, release=True, keep=lambda: runtime.did.append("kept"))
    assert "kept" not in runtime.did


@pytest.mark.parametrize("command", [up, switch])
def test_a_run_that_begins_during_the_build_of_the_active_orchestrator_is_left_alone(tmp_path, runs, command) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["old"])
    begins_a_run_when_built(runtime, runs)
    command(runtime, OLD)
    assert runtime.did == ["check old", "build old"]


def test_a_run_that_is_waited_for_keeps_its_postgresql(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old", outdated=["postgres"])
    runtime.in_use = True
    runs.append(RUN)
    build = runtime.build

    def checked(names, **options) -> None:
        assert runs == []
        build(names, **options)

    runtime.build = checked
    switch(runtime, how=OnActiveRun.WAIT)
    assert runtime.active() == "new"
    assert "build postgres" in runtime.did


@pytest.mark.parametrize("at", ["stop old", "start new"])
def test_a_switch_with_a_closed_output_is_rolled_back(tmp_path, runs, monkeypatch, at) -> None:
    left: list[bool] = []
    monkeypatch.setattr(terminal, "leave_output", lambda: left.append(True))  # the real one would close this test's own output
    runtime = Fake(tmp_path, active="old")
    runtime.fails = {at: BrokenPipeError()}
    with pytest.raises(KeyboardInterrupt, match="Old is active again"):
        switch(runtime)
    assert left
    assert runtime.active() == "old"
    assert runtime.did[-1] == "start old"


@pytest.mark.parametrize("at", ["stop old", "stop new"])
def test_a_step_that_cannot_be_interrupted_is_finished_with_a_closed_output(tmp_path, runs, monkeypatch, at) -> None:
    reader, writer = os.pipe()
    runtime = Fake(tmp_path, active="old")
    runtime.fails = {"start new": NotHealthy("New did not start.")}
    stop = runtime.stop_orchestrator

    def watched(on_line) -> None:
        if at == f"stop {runtime.active()}":
            os.close(reader)
        on_line(f"stopping {runtime.active()}")
        stop(on_line)

    runtime.stop_orchestrator = watched
    with open(writer, "w", encoding="utf-8") as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        with pytest.raises(KeyboardInterrupt if at == "stop old" else NotHealthy, match="Old is active again"):
            switch(runtime)
    undone = ["start new", "stop new"] if at == "stop new" else ["stop None"]
    assert runtime.did == ["check new", "start postgres", "stop old", *undone, "start postgres", "start old"]


def test_an_orchestrator_that_does_not_answer_can_be_replaced(tmp_path, runs, monkeypatch, capsys) -> None:
    def broken(_: object) -> list[pipeline.ActiveRun]:
        raise ApiUnusable("Old does not answer.")

    monkeypatch.setattr(pipeline, "active_runs", broken)
    runtime = Fake(tmp_path, active="old")
    switch(runtime)
    assert runtime.active() == "new"
    assert "cannot be ruled out" in capsys.readouterr().out


@pytest.mark.parametrize("command", [switch, lifecycle.down])
def test_an_orchestrator_whose_run_job_prints_rubbish_can_be_stopped(tmp_path, capsys, command) -> None:
    runtime = Fake(tmp_path, active="old")
    runtime.trigger = lambda orchestrator, words, on_line: on_line("rubbish")
    command(runtime)
    assert runtime.active() != "old"
    assert "cannot be ruled out" in capsys.readouterr().out


@pytest.mark.parametrize(("silent", "waited"), [(3, True), (100, False)])
def test_the_wait_for_a_run_survives_a_restart_of_its_api(tmp_path, monkeypatch, silent, waited) -> None:
    """An unanswered query does not mean that the run has ended; but the wait for an answer is limited."""
    answers = iter([[RUN], *[None] * silent, [RUN], []])
    seconds = iter(range(1000))

    def asked(_: object) -> list[pipeline.ActiveRun]:
        answer = next(answers)
        if answer is None:
            raise ApiUnusable("Old does not answer.")
        return answer

    monkeypatch.setattr(pipeline, "active_runs", asked)
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(seconds)))
    runtime = Fake(tmp_path, active="old")
    with contextlib.nullcontext() if waited else pytest.raises(ApiUnusable):
        switch(runtime, how=OnActiveRun.WAIT)
    assert runtime.active() == ("new" if waited else "old")


def test_a_run_that_cannot_be_cancelled_ends_with_its_orchestrator(tmp_path, runs, monkeypatch, capsys) -> None:
    def broken(_: object) -> None:
        raise ApiUnusable("Could not cancel Old's runs.")

    monkeypatch.setattr(pipeline, "cancel_runs", broken)
    runs.append(RUN)
    runtime = Fake(tmp_path, active="old")
    switch(runtime, how=OnActiveRun.FORCE)
    assert runtime.active() == "new"
    output = capsys.readouterr().out
    assert "Could not cancel Old's runs. The run ends when its orchestrator stops." in output
    assert "ruled out" not in output


@pytest.mark.parametrize(("in_use", "names", "refused"), [(True, ["old"], True), (True, ["new"], False), (False, ["old"], False)])
def test_the_environment_of_a_run_in_progress_is_not_rebuilt(tmp_path, runs, in_use, names, refused) -> None:
    runs.append(RUN)
    runtime = Fake(tmp_path, active="old", outdated=names)
    runtime.in_use = in_use
    with pytest.raises(RunInProgress) if refused else contextlib.nullcontext():
        lifecycle.rebuild(runtime, list(names), cache=True)
    assert runtime.did == ([] if refused else [f"build {names[0]}"])


@pytest.mark.parametrize("answer", [True, False])
def test_clean_asks_before_it_deletes_data(tmp_path, runs, monkeypatch, answer) -> None:
    asked: list[str] = []
    monkeypatch.setattr(console, "confirm", lambda question: asked.append(question) or answer)
    runtime = Fake(tmp_path, active="old")
    backed_up: list[bool] = []

    def clean() -> None:
        lifecycle.clean(runtime, volumes=True, images=True, yes=False, first=lambda: backed_up.append(True))

    if answer:
        clean()
        assert runtime.did == ["down", "delete data", "delete image"]
    else:
        with pytest.raises(BadUsage, match="Nothing was deleted"):
            clean()
        assert runtime.did == []
    assert backed_up == [True]
    assert asked
    assert "data" in asked[0]


def test_clean_deletes_nothing_if_the_backup_fails_or_a_run_is_in_progress(tmp_path, runs) -> None:
    runtime = Fake(tmp_path, active="old")

    def failing() -> None:
        raise BadUsage("no backup")

    with pytest.raises(BadUsage, match="no backup"):
        lifecycle.clean(runtime, volumes=True, images=True, yes=True, first=failing)
    runs.append(RUN)
    with pytest.raises(RunInProgress):
        lifecycle.clean(runtime, volumes=True, images=True, yes=True)
    assert runtime.did == []


def test_clean_without_flags_deletes_no_data_and_asks_nothing(tmp_path, runs, monkeypatch) -> None:
    monkeypatch.setattr(console, "confirm", lambda question: pytest.fail(question))
    runtime = Fake(tmp_path, active="old")
    lifecycle.clean(runtime, volumes=False, images=False, yes=False)
    assert runtime.did == ["down"]
