"""up, switch and down: what happens in which order, whatever the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stack import console
from stack.errors import AlreadyActive, BadUsage, NothingActive, StackError
from stack.orchestrators import Orchestrator
from stack.runtime import POSTGRES, Runtime


@contextmanager
def _waiting(what: str, done: str) -> Iterator[console.Waiting]:
    """Show that something goes on; say ``done`` and the seconds when it ends well."""
    with console.Waiting(what) as waiting:
        yield waiting
    console.ok(f"{done} after {waiting.seconds:.0f} s")


def build(runtime: Runtime, names: list[str], *, cache: bool = True) -> None:
    """Build the images, or without Docker the environments, of ``names``, one after the other."""
    for name in names:
        with _waiting(f"Building the {runtime.artifact} for {name}", f"{runtime.artifact.capitalize()} for {name} built") as waiting:
            runtime.build([name], cache=cache, on_line=waiting.detail)


def up(runtime: Runtime, target: Orchestrator, *, baked: bool, timeout: int) -> None:
    """Bring PostgreSQL and ``target`` up, building what is missing or out of date.

    Raises:
        AlreadyActive: another orchestrator is active; nothing was touched.
    """
    active = runtime.active()
    if active not in (None, target.name):
        title = runtime.orchestrators[active].title
        raise AlreadyActive(
            f"{title} is active, and only one orchestrator runs at a time.",
            f"{target.title} would use the same warehouse at the same time.",
            f"invoke switch {target.name}",
        )
    _prepare(runtime, target, baked, timeout)
    _start(runtime, target, baked, timeout)


def switch(runtime: Runtime, target: Orchestrator, *, baked: bool, timeout: int) -> None:
    """Put ``target`` in the place of the active orchestrator; bring the old one back when the new one fails.

    Everything that can fail beforehand (configuration, ports, builds) fails while the old one still runs.

    Raises:
        NothingActive: there is nothing to switch from.
    """
    active = runtime.active()
    if active is None:
        raise NothingActive("No orchestrator is active, so there is nothing to switch from.", "", f"invoke up --orch {target.name}")
    if active == target.name:
        console.ok(f"{target.title} is the active orchestrator already")
    was_baked = any(service.baked for service in runtime.services())
    _prepare(runtime, target, baked, timeout)
    try:
        _start(runtime, target, baked, timeout)
    except (StackError, KeyboardInterrupt) as error:
        if active == target.name:
            raise
        old = runtime.orchestrators[active]
        console.fail(f"{target.title} did not start; bringing {old.title} back")
        _start(runtime, old, was_baked, timeout)
        if isinstance(error, StackError):
            error.what += f" {old.title} is active again."
        raise


def _prepare(runtime: Runtime, target: Orchestrator, baked: bool, timeout: int) -> None:
    runtime.preflight(target, baked=baked)
    build(runtime, runtime.outdated([POSTGRES, target.name], baked=baked))
    with console.Waiting("Starting PostgreSQL") as waiting:
        runtime.start_postgres(timeout, waiting.detail)
    console.ok(f"PostgreSQL is healthy on localhost:{runtime.settings.port('POSTGRES_PORT')}")


def _start(runtime: Runtime, target: Orchestrator, baked: bool, timeout: int) -> None:
    with _waiting(f"Starting {target.title}", f"{target.title} is healthy") as waiting:
        runtime.start(target, baked=baked, timeout=timeout, on_line=waiting.detail)


def down(runtime: Runtime) -> None:
    """Take everything down; the data stays."""
    _down(runtime)
    console.note(f"  The data is kept in {', '.join(runtime.volumes()) or 'no volume: nothing was ever started'}.")


def _down(runtime: Runtime) -> None:
    with _waiting("Stopping", "Everything is stopped") as waiting:
        runtime.down(waiting.detail)


def clean(runtime: Runtime, *, volumes: bool, images: bool, yes: bool) -> None:
    """Remove containers and network, and on request volumes and images, after a question.

    Raises:
        BadUsage: something would be deleted, and the answer was not yes.
    """
    doomed_volumes = runtime.volumes() if volumes else []
    doomed_images = runtime.images() if images else []
    if doomed_volumes and not yes and not console.confirm(f"Delete {', '.join(doomed_volumes)} and all data in it?"):
        raise BadUsage("Nothing was deleted.", "The question was not answered with yes.", "invoke clean --volumes --yes")
    _down(runtime)
    runtime.remove_volumes(doomed_volumes)
    runtime.remove_images(doomed_images)
    for name in (*doomed_volumes, *doomed_images):
        console.ok(f"Deleted {name}")


def access(target: Orchestrator, settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where to go and how to sign in: label and value, never a password itself."""
    sign_in = (
        f"user {target.login_user}, password: {target.login_key} in .env" if target.login_user else "none (the product has no sign-in)"
    )
    return [
        (target.title, url(target, settings)),
        ("Sign-in", sign_in),
        ("PostgreSQL", f"localhost:{settings['POSTGRES_PORT']}, database airflow, user dbt, password: DBT_PASSWORD in .env"),
    ]


def url(target: Orchestrator, settings: Mapping[str, str]) -> str:
    """The address of the orchestrator's start page."""
    return f"http://localhost:{settings[target.ui_port]}{target.ui_path}"
