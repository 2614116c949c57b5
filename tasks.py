"""One dbt project, three orchestrators, one command to move between them: every task that a person can type."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from switchyard import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, ParamSpec

    from invoke.tasks import Task

    from switchyard.lifecycle import OnActiveRun
    from switchyard.runtimes.runtime import WholeRuntime
    from switchyard.settings import Settings

    P = ParamSpec("P")

# Private files get their mode explicitly. All others have to be readable for other accounts: PostgreSQL's, or a container's.
os.umask(0o022)

# Each task imports what it needs itself, so that `invoke --list` is quick, and works with nothing else installed or set up.

ORCH = "Orchestrator, such as dagster: the NAME of a file compose/docker-compose-NAME.yaml."
BAKED = "Run the dbt project that the image contains, without the mount of the project's folder."
RUNTIME = (
    "What to run on: docker, native (no Docker needed), or auto (the one that has the data; else Docker, or native if no engine answers)."
    " Default: RUNTIME in .env."
)
TIMEOUT = "Seconds that services may take to become healthy."
WAIT = "If a run is in progress, wait for its end."
FORCE = "If a run is in progress, cancel it."
PACKAGES = ("colorama", "dotenv", "psutil", "tomli", "yaml")  # those of requirements.txt that the commands import


WRITING = (
    "build",
    "run",
    "seed",
    "snapshot",
    "run-operation",
    "clone",
    "retry",
    "test",
)  # dbt commands that are refused while a run is in progress
UNDOING = ("deps", "clean", "init")  # those that would change what a build has made


def hung_up(number: int, frame: FrameType | None) -> None:
    """Handle SIGHUP, for a closed terminal: discard all further output, then act as for Ctrl-C."""
    from switchyard import terminal

    terminal.leave_terminal()
    signal.default_int_handler(number, frame)


def guard(body: Callable[P, None]) -> Callable[P, None]:
    """Turn each error that a user can cause into a message and an exit code, without a traceback; show the help on --help."""

    @functools.wraps(body)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        if {"-h", "--help"}.intersection(map(str, kwargs.values())):  # Invoke takes it for the value of a positional argument
            name = body.__name__.replace("_", "-")
            subprocess.run([sys.executable, "-m", "invoke", "--search-root", str(ROOT), "--help", name])
            return

        from switchyard.errors import EngineMissing, StackError, name_the_shell

        environ = dict(os.environ)  # before the task adds the values of its flags
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # it was closed
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        # SIGTERM does the same as Ctrl-C: a switch is rolled back.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, hung_up)
        # In the background of a script, SIGINT is ignored. The command's programs must not inherit that: SIGINT ends them gently.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)
        try:
            body(*args, **kwargs)
        except StackError as error:
            name_the_shell(error, environ)
            raise Exit(str(error), error.code) from None
        except ModuleNotFoundError as error:
            if error.name not in PACKAGES:
                raise
            next_ = f"{sys.executable} -m pip install -r requirements.txt"
            missing = EngineMissing(f"The package {error.name} is not installed.", f"Invoke runs on {sys.executable}.", next_)
            raise Exit(str(missing), missing.code) from None
        except BrokenPipeError:  # the reader of the output has ended, such as `head`
            from switchyard import terminal

            terminal.leave_output()
            raise Exit(code=130) from None
        except OSError as error:
            from switchyard import diagnosis

            refused = diagnosis.refusal(error)
            if refused is None:
                raise
            raise Exit(str(refused), refused.code) from None
        except KeyboardInterrupt as interrupt:
            raise Exit(f"Interrupted. {interrupt}".strip(), 130) from None

    return guarded


def command(**options: Any) -> Callable[[Callable[..., None]], Task[Any]]:
    """An Invoke task that is guarded, and whose help shows each flag's default."""

    def made(body: Callable[..., None]) -> Task[Any]:
        for name, text in options.get("help", {}).items():
            default = inspect.signature(body).parameters[name.replace("-", "_")].default
            if default and isinstance(default, str):
                options["help"][name] = f"{text} Default: {default}."
        found: Task[Any] = task(**options)(guard(body))
        return found

    return made


def runtime_of(
    c: Context, asked: str | None = None, starting: bool = False, keep: tuple[int, ...] = (), new_ports: bool = False, leaving: bool = False
) -> WholeRuntime:
    """The runtime that the task works on, as `switchyard.runtimes.choice.choose` picks it.

    ``leaving`` is for tasks that only look, stop, or leave a release: they work without the release's file.
    """
    from switchyard import console, neighbours, orchestrators, settings
    from switchyard.release import NoRelease
    from switchyard.runner import Runner
    from switchyard.runtimes import choice
    from switchyard.runtimes.docker.runtime import Docker
    from switchyard.runtimes.native.runtime import Native
    from switchyard.runtimes.runtime import POSTGRES

    console.dry = c.config.run.dry
    known = orchestrators.load_all(ROOT)
    if not leaving:  # a stack that is up can be stopped even if an orchestrator lacks a setting
        orchestrators.require_keys(known, settings.defaults(ROOT, {}).values)
    chosen = {}
    if neighbours.is_new(ROOT) and not console.dry:
        example, _ = settings.load(ROOT, os.environ, write=False, released=False)
        chosen = neighbours.chosen_ports(example, os.environ)
    released = True
    try:
        loaded, made = settings.load(ROOT, os.environ, write=not console.dry, chosen=chosen)
    except NoRelease as error:
        if not leaving:
            raise
        released = False
        loaded, made = settings.load(ROOT, os.environ, write=not console.dry, released=released)
        with contextlib.redirect_stdout(sys.stderr):
            console.advice(f"{error.what} {error.why}")
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the command's result, such as JSON
        if made:
            console.done(f"Wrote {len(made)} random secrets to .env, readable by you alone")
        for key, port in chosen.items():
            console.note(f"{key} is {port}: {example.port(key)} is taken on this machine.")

    def choose(loaded: Settings) -> tuple[WholeRuntime, str]:
        env = {**loaded.values, "COMPOSE_PROJECT_NAME": loaded.compose_name}
        runner = Runner(env, echo=c.config.run.echo, dry=c.config.run.dry, keep=keep)
        return choice.choose(Docker(loaded, known, runner), Native(loaded, known, runner, os.environ), asked, starting=starting)

    as_started, others = (loaded, []) if new_ports else loaded.as_started()
    driver, reason = choose(as_started)
    if isinstance(driver, Docker) and not console.dry and neighbours.is_unnamed(loaded, os.environ):
        with contextlib.redirect_stdout(sys.stderr):
            if line := neighbours.name_stack(loaded, (POSTGRES, *known), Runner({})):
                console.note(line)
        return runtime_of(c, asked, starting, keep, new_ports, leaving)
    if others and not driver.running():  # another program has these ports by now
        others, (driver, reason) = [], choose(loaded)
    with contextlib.redirect_stdout(sys.stderr):
        for line in others:
            console.advice(line)
    if reason:
        with contextlib.redirect_stdout(sys.stdout if starting else sys.stderr):
            console.note(reason)
    return driver


@contextlib.contextmanager
def changing(
    c: Context, command: str, asked: str | None = None, starting: bool = False, new_ports: bool = False, leaving: bool = False
) -> Iterator[WholeRuntime]:
    """The runtime for a task that changes the stack. The lock is taken before the state of the stack is read."""
    from switchyard import command_lock

    with command_lock.held(ROOT, command) as descriptor:
        yield runtime_of(c, asked, starting, (descriptor,), new_ports, leaving)


def on_active_run(wait: bool, force: bool) -> OnActiveRun:
    """What to do with a run in progress."""
    from switchyard.errors import BadUsage
    from switchyard.lifecycle import OnActiveRun

    if wait and force:
        raise BadUsage("--wait and --force contradict each other.", "One waits for the run's end, the other cancels it.", "invoke status")
    return OnActiveRun.WAIT if wait else OnActiveRun.FORCE if force else OnActiveRun.REFUSE


def whole(flag: str, value: str) -> int:
    """The value of ``flag`` as a positive whole number; for any other value, Invoke itself would end with a traceback."""
    from switchyard.errors import BadUsage

    if not re.fullmatch("0*[1-9][0-9]{0,8}", value):
        raise BadUsage(f"{flag} {value!r} is not a positive whole number.", "", f"{flag} 60")
    return int(value)


def several(typed: str, value: str) -> str:
    """A number of workers, which may be 0."""
    from switchyard.errors import BadUsage

    if not re.fullmatch("0|[1-9][0-9]?", value):
        raise BadUsage(f"{typed} {value!r} is not a valid number of workers.", "It is a number from 0 to 99.", f"{typed} 2")
    return value


def keep_workers(number: str | None) -> None:
    """Write the number of workers to ``.env``, if one was given: later commands use it too."""
    from switchyard import console, settings

    if number is not None and not console.dry:
        settings.assign(ROOT, "WORKERS", number)


@command(
    help={"orch": ORCH + " Default: all, and PostgreSQL.", "cache": "Reuse what is still valid.", "runtime": RUNTIME},
)
def build(c: Context, orch: str | None = None, cache: bool = True, runtime: str | None = None) -> None:
    """Build the images, or environments: PostgreSQL and every orchestrator, each with dbt, its packages and a parsed project."""
    from switchyard import lifecycle, orchestrators
    from switchyard.errors import BadUsage

    known = orchestrators.load_all(ROOT)
    asked = orchestrators.find(known, orch) if orch is not None else None
    with changing(c, "build", runtime) as driver:
        if driver.settings["RELEASE_FILE"]:
            raise BadUsage(
                f"The release {driver.settings['SWITCHYARD_RELEASE']} is in use, and its images are never built here.",
                "",
                "invoke use shop, or another folder",
            )
        names = [asked.name] if asked else ["postgres", *(name for name in known if not driver.unsupported(known[name]))]
        lifecycle.rebuild(driver, names, cache=cache)


@command(
    help={
        "orch": ORCH + " Default: ORCHESTRATOR in .env.",
        "baked": BAKED,
        "integration": "How Airflow builds: vendor (a task per dbt node) or lean (one task). Default: INTEGRATION in .env.",
        "workers": "The number of workers that run dbt, in Docker only; 0 for none. It is saved to .env. Default: WORKERS in .env.",
        "timeout": TIMEOUT,
        "runtime": RUNTIME,
        "release": "Run the images listed in this release.json, until the next invoke use; nothing is built or mounted.",
    }
)
def up(
    c: Context,
    orch: str | None = None,
    baked: bool = False,
    integration: str | None = None,
    workers: str | None = None,
    timeout: str = "300",
    runtime: str | None = None,
    release: str | None = None,
) -> None:
    """Start PostgreSQL and one orchestrator, and wait until they are healthy; builds what is missing or out of date."""
    from switchyard import console, lifecycle, orchestrators, settings
    from switchyard import release as releases
    from switchyard.errors import BadUsage

    seconds = whole("--timeout", timeout)
    known = orchestrators.load_all(ROOT)
    target = orchestrators.find(known, orch) if orch is not None else None
    if integration is not None:
        if integration not in ("vendor", "lean"):
            raise BadUsage(f"There is no integration called {integration!r}.", "There are vendor and lean.", "invoke up")
        os.environ["INTEGRATION"] = integration  # as if it were set in the shell
    if workers is not None:
        os.environ["WORKERS"] = several("--workers", workers)  # as above
    new = None if release is None else releases.read(Path(release).resolve())
    if new:
        os.environ["RELEASE_FILE"] = str(new.file)  # as above
    with changing(c, "up", runtime, starting=True, new_ports=True) as driver:
        target = target or orchestrators.find(known, driver.settings["ORCHESTRATOR"], "ORCHESTRATOR")

        def keep() -> None:
            if new and not console.dry:
                settings.assign(ROOT, "RELEASE_FILE", new.keep(ROOT))
            keep_workers(workers)

        lifecycle.up(driver, target, baked=baked, timeout=seconds, release=bool(new), keep=keep)
    if not console.dry:
        console.facts(target.access(driver.settings.as_started()[0].values, driver.project.database if driver.project.shared else None))


@command(positional=["name"], help={"name": ORCH, "baked": BAKED, "timeout": TIMEOUT, "wait": WAIT, "force": FORCE})
def switch(c: Context, name: str, baked: bool = False, timeout: str = "300", wait: bool = False, force: bool = False) -> None:
    """Replace the active orchestrator with another; PostgreSQL and its data stay as they are."""
    from switchyard import console, lifecycle, orchestrators

    seconds = whole("--timeout", timeout)
    target = orchestrators.find(orchestrators.load_all(ROOT), name)
    with changing(c, "switch") as driver:
        lifecycle.switch(driver, target, baked=baked, timeout=seconds, on_active_run=on_active_run(wait, force))
    if not console.dry:
        console.facts(target.access(driver.settings.values, driver.project.database if driver.project.shared else None))


@command(positional=["workers"], help={"workers": "The number of workers, which is saved to .env.", "timeout": TIMEOUT})
def scale(c: Context, workers: str, timeout: str = "300") -> None:
    """Change how many workers run dbt, during a run too; a run on a removed worker fails. With 0, Prefect keeps one."""
    from switchyard import lifecycle

    seconds = whole("--timeout", timeout)
    os.environ["WORKERS"] = several("invoke scale", workers)  # as if it were set in the shell
    with changing(c, "scale") as driver:
        lifecycle.scale(driver, timeout=seconds, keep=functools.partial(keep_workers, workers))


@command(
    name="worker-env",
    help={"out": "The folder to write to, which must be new or empty. Default: ejected/<name>-workers in the checkout."},
)
def worker_env(c: Context, out: str | None = None) -> None:
    """Write what another machine needs for workers of the active orchestrator: one Compose file, and an .env with secrets."""
    from switchyard import eject as ejecting
    from switchyard import release as releases
    from switchyard import remote_workers
    from switchyard.errors import NothingActive
    from switchyard.runtimes.docker.runtime import Docker

    with changing(c, "worker-env") as driver:
        remote_workers.check(driver.settings, driver.project)
        active = driver.active()
        if active is None:
            raise NothingActive("No orchestrator is active.", "", "invoke up")
        target = driver.orchestrators[active]
        remote_workers.require_workers(target, driver.services(), driver.settings["WORKERS"])
        remote_workers.require_network(driver.engine.network() if isinstance(driver, Docker) else "")
        made = releases.read(releases.noted(ROOT, driver.settings["RELEASE_FILE"]))
        files = remote_workers.files(driver.settings, target, driver.project, made)
    folder = Path(out) if out else ROOT / "ejected" / f"{active}-workers"
    then = ". Copy it. On the other machine, in that folder: docker compose up -d --wait"
    ejecting.write(folder, files, "invoke worker-env", then)


@command(help={"wait": WAIT, "force": FORCE})
def down(c: Context, wait: bool = False, force: bool = False) -> None:
    """Stop the orchestrator and PostgreSQL; the data stays."""
    from switchyard import lifecycle

    with changing(c, "down", leaving=True) as driver:
        lifecycle.down(driver, on_active_run(wait, force))
        if driver.beside:  # when a Docker engine starts, it restarts its containers, even if the stack runs natively by then
            lifecycle.down(driver.beside, on_active_run(wait, force))


@command(
    positional=["folder"],
    help={
        "folder": "A folder with a dbt_project.yml; shop is the project that comes with this checkout.",
        "warehouse": "Where its data goes: own (as in its profile), shared (the stack's PostgreSQL), or auto. Default: WAREHOUSE in .env.",
    },
)
def use(c: Context, folder: str, warehouse: str | None = None) -> None:
    """Select your own dbt project: check it, and make it the one that every orchestrator runs. Nothing is written into it."""
    from switchyard import project as projects
    from switchyard.errors import AlreadyActive, BadUsage
    from switchyard.runner import shown

    if warehouse not in (None, projects.AUTO, projects.SHARED, projects.OWN):
        raise BadUsage(f"There is no warehouse called {warehouse!r}.", "There are auto, shared and own.", shown(["invoke", "use", folder]))

    with changing(c, "use", leaving=True) as driver:
        if active := driver.active():
            title = driver.orchestrators[active].title
            again = shown(["invoke", "use", folder, *(["--warehouse", warehouse] if warehouse else [])])
            raise AlreadyActive(f"{title} is up, with the project that it was started with.", "", f"invoke down, then: {again}")
        projects.use(driver.settings, os.environ, folder, warehouse, dry=c.config.run.dry)


@command(
    help={
        "job": "A job of the project. Default: daily, or the first one in its orchestration.yml.",
        "failed": "Run the nodes that failed or were skipped in the last run, with their tests, instead of a job.",
        "select": "Only these nodes, as for dbt's --select, instead of those that the job selects: 'tag:finance +orders'.",
        "vars": "Variables for dbt, which override those of the job: '{day: 2026-01-01}'.",
        "full-refresh": "Build incremental models and seeds from nothing.",
        "cancel": "Cancel every run in progress, instead of starting one.",
    }
)
def run(
    c: Context,
    job: str | None = None,
    failed: bool = False,
    select: str | None = None,
    vars: str | None = None,
    full_refresh: bool = False,
    cancel: bool = False,
) -> None:
    """Run the dbt pipeline through the active orchestrator, follow it, and exit 0 only if every node succeeded."""
    from switchyard import command_lock, pipeline, warehouse
    from switchyard.errors import BadUsage

    asked = job, select, vars, full_refresh or None
    if failed and (cancel or asked != (None,) * 4):
        raise BadUsage(
            "--failed cannot be combined with other options.",
            "It repeats the last run with its job and its options.",
            "invoke run --failed",
        )
    if cancel and asked != (None,) * 4:
        raise BadUsage("--cancel cannot be combined with other options.", "It cancels whatever runs.", "invoke run --cancel")
    if cancel:
        pipeline.cancel(runtime_of(c))
        return
    with contextlib.ExitStack() as held:
        # Hold the lock until the run has begun. From then on, commands that change the stack see it as a run in progress.
        held.enter_context(command_lock.held(ROOT, "run"))
        driver = runtime_of(c)
        name = pipeline.RERUN if failed else pipeline.known_job(driver.settings, job)
        options = None if failed else pipeline.run_options(driver.settings, name, select, vars, full_refresh)
        with warehouse.watched(driver):
            pipeline.run(driver, name, options, begun=held.close)


@task(help={"args": "The dbt command and its flags."})
def dbt(c: Context, args: str = "") -> None:
    """Run a dbt command (not deps, clean or init) where the active orchestrator runs dbt: invoke dbt ls --select tag:smoke."""
    # `run_dbt`, below, handles a dbt command before Invoke parses anything: Invoke takes dbt's flags for its own.
    raise Exit("Type a dbt command after it: invoke dbt ls", 2)


def possible_commands(words: list[str]) -> set[str]:
    """Which of the words after ``invoke dbt`` may be dbt's command: the first, or any after a flag, whose value may be such a word."""
    return set(words if words[0].startswith("-") else words[:1])


@guard
def run_dbt(c: Context) -> None:
    """Run the dbt command that follows ``invoke dbt``."""
    from switchyard import command_lock, pipeline
    from switchyard.errors import BadUsage, NothingActive, RunInProgress
    from switchyard.runner import shown

    words = sys.argv[sys.argv.index("dbt") + 1 :]
    commands = possible_commands(words)
    if undoing := commands.intersection(UNDOING):
        raise BadUsage(f"dbt {undoing.pop()} changes what was built.", "Packages are installed by a build.", "invoke build")
    writes = bool(commands.intersection(WRITING))
    with contextlib.ExitStack() as held:
        if writes:  # until dbt has ended: no orchestrator knows of it, so no other command could see it as a run in progress
            held.enter_context(command_lock.held(ROOT, "dbt"))
        driver = runtime_of(c)
        active = driver.active()
        if active is None:
            raise NothingActive("No orchestrator is active, so there is no dbt to call.", "", "invoke up")
        if writes and (runs := pipeline.active_runs(driver)):
            again = shown(["invoke", "dbt", *words])
            raise RunInProgress("A run is in progress.", "\n".join(map(str, runs)), f"Wait until it ends, then: {again}")
        code = driver.dbt(driver.orchestrators[active], words)
    raise Exit(code=code)


@command(help={"port": "The port on 127.0.0.1. Default: any free one."})
def docs(c: Context, port: str | None = None) -> None:
    """Make the project's dbt docs, lineage included, and serve them on this machine until Ctrl-C."""
    from switchyard import docs
    from switchyard.errors import BadUsage

    number = 0 if port is None else whole("--port", port)
    if number > 65535:
        raise BadUsage(f"--port {port} is not a port.", "A port is a number from 1 to 65535.", "invoke docs   (takes any free port)")
    docs.serve(runtime_of(c), number)


@command(help={"json": "Print one JSON object instead of a table."})
def status(c: Context, json: bool = False) -> None:
    """Show which orchestrator is active, its address, and the state and health of each service."""
    from switchyard import status as state

    driver = runtime_of(c, leaving=True)
    state.print_json(driver) if json else state.print_table(driver)


@command(
    help={
        "follow": "Follow new lines until Ctrl-C.",
        "service": "Only this service (see `invoke status`).",
        "tail": "Number of lines of each service to show first.",
    }
)
def logs(c: Context, follow: bool = False, service: str | None = None, tail: str = "100") -> None:
    """Show the logs of the active orchestrator and PostgreSQL."""
    lines = whole("--tail", tail)
    driver = runtime_of(c, leaving=True)
    if driver.logs(driver.active(), follow=follow, tail=lines, service=service):
        raise Exit(code=1)


@command(positional=["query"], help={"query": "One SQL statement."})
def sql(c: Context, query: str) -> None:
    """Run one statement in the warehouse, as the role dbt."""
    ask_warehouse(c, "sql", query)


@command()
def psql(c: Context) -> None:
    """Open psql on the warehouse, as the role dbt; it also reads statements from a pipe."""
    ask_warehouse(c, "psql", None)


def ask_warehouse(c: Context, name: str, query: str | None) -> None:
    """Run a statement by psql, or have psql read statements."""
    from switchyard import warehouse

    driver = runtime_of(c)
    warehouse.require_shared(driver, name)
    session = f"psql of process {os.getpid()}"
    with warehouse.ended_when_interrupted(driver, session):
        code = driver.sql(query, tty=query is None and sys.stdin.isatty(), session=session)
    if code:
        raise Exit(code=1)


@command(
    help={"file": "The file to write. Default: backups/switchyard-<time>.dump in the checkout.", "runtime": RUNTIME},
)
def backup(c: Context, file: str | None = None, runtime: str | None = None) -> None:
    """Write the warehouse's data to one file, which `invoke restore` can load on either runtime."""
    from switchyard import backups

    with changing(c, "backup", runtime) as driver:
        backups.backup(driver, file)


@command(
    positional=["file"],
    help={"file": "A file that `invoke backup` has written.", "yes": "Do not ask before data is replaced.", "runtime": RUNTIME},
)
def restore(c: Context, file: str, yes: bool = False, runtime: str | None = None) -> None:
    """Replace the warehouse's data with that of a backup: all of it, or nothing if anything fails."""
    from switchyard import backups

    with changing(c, "restore", runtime, starting=True) as driver:
        backups.restore(driver, file, yes=yes)


@command(
    help={
        "orders": "The number of orders of a new shop, over two years; it replaces all data in the warehouse.",
        "seed": "Another whole number gives another shop of the same size.",
        "days": "Add this many days to the generated shop, instead of making a new one.",
        "yes": "Do not ask before data is replaced.",
        "runtime": RUNTIME,
    }
)
def generate(
    c: Context, orders: str | None = None, seed: str = "1", days: str | None = None, yes: bool = False, runtime: str | None = None
) -> None:
    """Fill the raw tables with a made-up shop of any size, or add days to it; `invoke run` then builds the marts from it."""
    from switchyard import generate as generated
    from switchyard.errors import BadUsage

    if (orders is None) == (days is None):
        raise BadUsage("Use either --orders or --days.", "One makes a new shop, the other continues it.", "invoke generate --orders 10000")
    count = whole("--orders", orders) if orders is not None else whole("--days", days or "")
    given_seed = whole("--seed", seed)
    with changing(c, "generate", runtime, starting=True) as driver:
        generated.new(driver, count, given_seed, yes=yes) if orders is not None else generated.append(driver, count)


@command(
    help={
        "volumes": "Delete the data as well: everything in PostgreSQL, run history included, and a DuckDB file.",
        "images": "Delete the images as well.",
        "backup": "Back the warehouse up before its data is deleted.",
        "yes": "Do not ask.",
        "runtime": RUNTIME,
    }
)
def clean(
    c: Context, volumes: bool = False, images: bool = False, yes: bool = False, backup: bool = True, runtime: str | None = None
) -> None:
    """Remove this stack's containers (or processes) and network, and on request its data and its images."""
    from switchyard import backups, lifecycle

    with changing(c, "clean", runtime) as driver:
        first = functools.partial(backups.before_deletion, driver) if backup else None
        lifecycle.clean(driver, volumes=volumes, images=images, yes=yes, first=first)


@command(help={"runtime": RUNTIME, "json": "Print one JSON object, for a bug report."})
def doctor(c: Context, runtime: str | None = None, json: bool = False) -> None:
    """Check everything that a start needs, and show how to fix it; changes nothing, and needs no setup."""
    from switchyard import doctor
    from switchyard.runner import Runner

    def runner(settings: Settings) -> Runner:
        return Runner({**settings.values, "COMPOSE_PROJECT_NAME": settings.compose_name}, echo=c.config.run.echo)

    code = doctor.examine(ROOT, os.environ, runtime, runner, as_json=json)
    if code:
        raise Exit(code=code)


@command(
    help={
        "only": "Some of the measurements, separated by commas (see docs/benchmark.md). Default: all.",
        "orch": "Some of the orchestrators, separated by commas. Default: all.",
        "rounds": "How often everything is measured.",
        "runtime": "Measure on docker or native. Default: both, where available.",
        "out": "The JSON file to write. Default: bench/results/<time>.json in the checkout.",
    }
)
def bench(
    c: Context, orch: str = "", runtime: str = "", only: str = "", rounds: str = "5", out: str | None = None
) -> None:  # in this order, so that -o and -r mean the same as in other tasks
    """Measure what orchestration costs, as ratios, on a separate stack; yours is not touched."""
    from bench.__main__ import main
    from switchyard import console

    if c.config.run.dry:
        console.say("Would measure on a separate stack.")
        return
    main(only, orch, whole("--rounds", rounds), runtime, out)


@command(
    help={
        "registry": "Required. The address that all image names begin with, such as localhost:5000/shop.",
        "tag": "Required. The release's name, and each image's tag, such as 2026.11.1.",
        "orch": "Some of the orchestrators, separated by commas. Default: all.",
        "out": "The folder of its file. Default: releases/<tag> in the checkout.",
    }
)
def release(c: Context, registry: str = "", tag: str = "", orch: str = "", out: str | None = None) -> None:
    """Build images that contain the project, test them, push them, and write a file for invoke up --release."""
    from bench import harness
    from switchyard import console, orchestrators, publish
    from switchyard.errors import EngineMissing
    from switchyard.runtimes.docker.runtime import Docker

    names = harness.picked(orch, orchestrators.load_all(ROOT), "orchestrator", "invoke release --orch")
    with changing(c, "release", "docker") as driver:
        if not isinstance(driver, Docker):
            raise EngineMissing(
                "A release is made of images, which the runtime that is up does not have.", "", "invoke down, then the same command"
            )
        if console.dry:
            console.say(f"Would release {', '.join(names)} to {registry}, as {tag}.")
            return
        publish.publish(driver, registry, tag, list(names) or list(driver.orchestrators), None if out is None else Path(out))


@command(
    positional=["name"],
    help={
        "name": ORCH,
        "to": "What the files are for: compose, or helm (Kubernetes, by the vendor's charts).",
        "release": "The file of the release. Default: the release in use.",
        "out": "The folder to write to, which must be new or empty. Default: ejected/<name>-<to> in the checkout.",
    },
)
def eject(c: Context, name: str, to: str = "compose", release: str | None = None, out: str | None = None) -> None:
    """Write files that run a release without this checkout; from then on they are yours."""
    from switchyard import console, helm, lifecycle, orchestrators
    from switchyard import eject as ejecting
    from switchyard import release as releases
    from switchyard.errors import BadUsage

    target = orchestrators.find(orchestrators.load_all(ROOT), name)
    writers = {"compose": ejecting.files, "helm": helm.files}
    if to not in writers:
        raise BadUsage(f"--to {to!r} is not supported.", "It can be compose or helm.", f"invoke eject {name} --to compose")
    if release is not None:
        os.environ["RELEASE_FILE"] = str(releases.read(Path(release).resolve()).file)
    with changing(c, "eject") as driver:
        if not driver.settings["RELEASE_FILE"]:
            raise BadUsage(
                "No release is in use.",
                "The files that eject writes run the images of a release.",
                f"invoke eject {name} --release releases/TAG/release.json",
            )
        if lifecycle.pull(driver, target) and console.dry:  # the project is known only after the pull
            return
        made = releases.read(releases.noted(ROOT, driver.settings["RELEASE_FILE"]))
        files = writers[to](driver.settings, target, driver.project, made)
    folder = Path(out) if out else ROOT / "ejected" / f"{name}-{to}"
    ejecting.write(folder, files, f"invoke eject {name} --to {to}", "; README.md lists the commands")


@command(
    optional=["upgrade"],
    help={"upgrade": "Take the newest versions: of all packages, or of one (NAME); or exactly NAME==VERSION."},
)
def lock(c: Context, upgrade: str | bool | None = None) -> None:
    """Update every lock from versions.toml and the requirements*.in, base images by digest; for people who work on this checkout."""
    from switchyard import console, pins, python_packages
    from switchyard.runner import Runner

    console.dry = c.config.run.dry
    runner = python_packages.trusting(Runner({}, echo=c.config.run.echo, dry=console.dry), ROOT)
    with console.Waiting("lock", "packages") as waiting:
        changed = pins.make(ROOT, runner, "" if upgrade is True else upgrade or None, waiting.detail)
    for path in changed:
        console.ok(f"{path.relative_to(ROOT).as_posix()} has changed")
    if not changed and not console.dry:
        console.ok("All locks and base images match versions.toml and the requirements*.in")
    by_tag = [image for image in pins.with_known_digests(ROOT, pins.versions(ROOT)["images"]).values() if "@" not in image]
    if by_tag and not console.dry:
        console.note(f"Without a digest, because no registry answered: {', '.join(by_tag)}")


@command(
    name="upgrade-test",
    help={"package": "The package to upgrade, or NAME==VERSION. Default: all, as far as versions.toml and the requirements*.in allow."},
)
def upgrade_test(c: Context, package: str = "") -> None:
    """Run the orchestrators' tests with newer packages, in a copy of the checkout, for people who work on this checkout."""
    from switchyard import console, python_packages, upgrades
    from switchyard.runner import Runner

    if c.config.run.dry:
        console.say("Would lock newer packages in a copy of this checkout, and run the orchestrators' tests there.")
        return
    upgrades.test(package, python_packages.trusting(Runner({}, echo=c.config.run.echo), ROOT))


@command(
    help={
        "orch": "Some of the orchestrators, separated by commas. Default: all.",
        "runtime": "Compare on docker or native. Default: RUNTIME in .env, or else Docker where its engine answers.",
        "quick": "Measure once, and leave out what takes long.",
        "full": "Measure everything, which takes about three hours.",
        "only": "Some of the sections, separated by commas (see docs/compare.md). Default: all.",
        "rounds": "How often everything is measured. Default: three times, or once with --quick; what takes long, once.",
        "out": "The folder to write to. Default: reports/<time> in the checkout.",
        "report": "Write the page again from a report.json, without measuring.",
    }
)
def compare(
    c: Context,
    orch: str = "",
    runtime: str = "",
    quick: bool = False,
    full: bool = False,
    only: str = "",
    rounds: str | None = None,
    out: str | None = None,
    report: str | None = None,
) -> None:
    """Compare the orchestrators on your project, in one page; uses its own stack and a copy of the project."""
    from compare.main import again, main
    from switchyard import console
    from switchyard.errors import BadUsage

    if report is not None:
        if orch or runtime or quick or full or only or rounds:
            raise BadUsage("--report can be combined only with --out.", "It measures nothing.", f"invoke compare --report {report}")
        again(report, out)
        return
    if c.config.run.dry:
        console.say("Would compare on a separate stack, with a copy of the project.")
        return
    if quick and full:
        raise BadUsage("--quick and --full exclude each other.", "", "invoke compare --quick")
    depth = "quick" if quick else "full" if full else "default"
    main(only, orch, None if rounds is None else whole("--rounds", rounds), runtime, out, depth)


# Invoke parses dbt's flags as its own unless `--` precedes them. Only where Invoke is the program: other programs import this file too.
if "invoke.main" in sys.modules and sys.argv[1:2] == ["dbt"] and len(sys.argv) > 2 and sys.argv[2] not in ("-h", "--help"):
    try:
        run_dbt(Context())
    except Exit as end:
        if end.message:
            print(end.message, file=sys.stderr)
        sys.exit(end.code)
