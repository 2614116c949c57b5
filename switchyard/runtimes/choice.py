"""The choice between the runtimes."""

from __future__ import annotations

from switchyard.errors import AlreadyActive, BadUsage, EngineMissing, StackError
from switchyard.runtimes.docker.runtime import Docker
from switchyard.runtimes.native.runtime import Native
from switchyard.runtimes.runtime import WholeRuntime

AUTO = "auto"
BOTH = "Both runtimes are up: the Docker engine starts its containers again when it is started. `invoke down` stops both."


def choose(docker: Docker, native: Native, asked: str | None, *, starting: bool = False) -> tuple[WholeRuntime, str]:
    """The runtime that a command works on.

    That is the runtime that is up. If none is, it is the one of ``--runtime``, or else of RUNTIME in ``.env``. ``auto`` takes the one
    that has the data; without data, it takes Docker if its engine answers.

    Args:
        docker: the runtime over a Docker engine.
        native: the runtime without one.
        asked: the value of ``--runtime``, or None.
        starting: whether the command is about to start something: only one runtime may be up then.

    Returns:
        The runtime, and a message if the choice may be unexpected; otherwise an empty string.

    Raises:
        BadUsage: ``asked`` is not a runtime, or ``auto`` is to start one, and both have data.
        AlreadyActive: the other runtime is up.
        EngineMissing: Docker was requested, or has the data, and no engine answers.
    """
    wanted = native.settings["RUNTIME"] if asked is None else asked
    if wanted not in (AUTO, docker.name, native.name):
        raise BadUsage(f"There is no runtime called {wanted!r}.", "The runtimes are auto, docker and native.", "invoke up --runtime auto")
    missing = None
    up: list[WholeRuntime] = [native] if native.running() else []
    if not (up and wanted == native.name):  # with RUNTIME=native, do not wait for Docker
        try:
            docker.require(starting=starting)
            up += [docker] if docker.running() else []
        except EngineMissing as error:
            missing = error
        except StackError:
            if not up:
                raise
    if up:
        if (starting and (len(up) > 1 or wanted not in (AUTO, up[0].name))) or asked not in (None, AUTO, *(runtime.name for runtime in up)):
            raise AlreadyActive(
                f"The stack is up on the runtime {' and on '.join(runtime.name for runtime in up)}, and only one uses its ports at a time.",
                f"{wanted} was requested, by --runtime or by RUNTIME in .env." if len(up) == 1 else BOTH,
                "invoke down",
            )
        picked = docker if asked == docker.name else up[0]
        picked.beside = next((runtime for runtime in up if runtime is not picked), None)
        return picked, BOTH if picked.beside else ""
    if wanted == native.name:
        return native, ""
    if missing:
        if wanted == docker.name:
            raise missing
        if docker.data.noted() and not native.data.exists():
            missing.what += " The data of this stack is in Docker."
            missing.next += "\nor begin with no data: invoke up --runtime native"
            raise missing
        if docker.data.noted():  # and the native runtime has data too
            return native, f"{missing.what} Using the native runtime's data; the data in Docker is unchanged."
        return native, f"{missing.what} Using the native runtime." if starting else ""
    if wanted == AUTO and native.data.exists():
        if not docker.data.exists():
            return native, "The data of this stack is in the native runtime."
        if starting:
            either = "invoke up --runtime docker\ninvoke up --runtime native"
            raise BadUsage("Both runtimes have data of this stack.", "auto takes the one that has the data.", either)
    return docker, ""
