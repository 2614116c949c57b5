"""The text of docs/commands.md, from the tasks and the error classes; ``python -m compare.pages`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from invoke.collection import Collection
from invoke.parser.argument import Argument
from invoke.tasks import Task

from switchyard import errors

HEAD = """\
# Commands and exit codes

`python -m compare.pages` generates this page from the code; a test compares the two.

`invoke --help COMMAND` shows the same on the terminal. `invoke --echo COMMAND` shows each program that it starts. `invoke --dry COMMAND`
shows what it would change, and changes nothing. Neither works with `invoke dbt`.
"""
OTHERS = {0: "The command succeeded.", 130: "The command was interrupted."}


def text() -> str:
    """The page."""
    import tasks

    found = Collection.from_module(tasks).tasks
    codes = {kind.code: kind.__doc__ for kind in errors.StackError.__subclasses__()}
    return "\n".join(
        [
            HEAD,
            *(line for name in sorted(found) for line in command(name, found[name])),
            "## Exit codes",
            "",
            "| code | meaning |",
            "|---|---|",
            *(f"| {code} | {(meaning or '').replace('``', '`')} |" for code, meaning in sorted({**codes, **OTHERS}.items())),
            "",
        ]
    )


def command(name: str, task: Task[Any]) -> Iterator[str]:
    """The lines about one command."""
    arguments = task.get_arguments()
    words = [_name(argument).upper() for argument in arguments if argument.positional or _name(argument) == "args"]
    yield from (f"## invoke {' '.join([name, *words])}", "", (task.__doc__ or "").splitlines()[0], "")
    if arguments:
        yield from ("| | |", "|---|---|", *map(row, arguments), "")


def row(argument: Argument) -> str:
    """The row of one argument."""
    name = _name(argument)
    if argument.positional or name == "args":  # `args` is that of `invoke dbt`: Invoke has no kind for it
        shown = name.upper()
    else:
        flag = f"--[no-]{name}" if argument.kind is bool and argument.default else f"--{name}"
        short = "".join(f", -{letter}" for letter in argument.names if len(letter) == 1)
        shown = f"{flag}{short}" + ("" if argument.kind is bool else f" {name.upper()}")
    return f"| `{shown}` | {(argument.help or '').replace('<', '&lt;')} |"


def _name(argument: Argument) -> str:
    """The argument's name, as it is typed."""
    return str(argument.names[0])
