"""A run with a hundred more models, which shows the cost of each model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import run
from bench.harness import Figure
from bench.rig import Rig
from switchyard.errors import StackError

MODELS = 100
MORE = f" with {MODELS} models more"
COLUMN = "bench_number"  # a column that only their tables have
# Each is a table that is built as fast as possible: ten parallel chains, in which each model reads the one before it.
TEXT = f"""{{{{{{{{ config(materialized='table') }}}}}}}}
select {COLUMN} from {{before}} limit 100
"""


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """As `bench.run.measure`."""
    with more(rig.folder / "dbt_project" / "models", MODELS):
        yield from run.measure(rig, rounds, MORE)


@contextmanager
def more(models: Path, count: int) -> Iterator[None]:
    """Temporarily add models to a project.

    Args:
        models: the project's folder of models.
        count: how many to add.

    Raises:
        StackError: the project has the folder that they would be in.
    """
    folder = models / "bench"
    if folder.exists():
        raise StackError(f"The project has a folder {models.name}/bench already, to which models would be added.")
    folder.mkdir(parents=True)
    for number in range(count):
        before = f"{{{{ ref('bench_{number - 10:03}') }}}}" if number >= 10 else f"generate_series(1, 100) as {COLUMN}"
        (folder / f"bench_{number:03}.sql").write_text(TEXT.format(before=before), encoding="utf-8")
    try:
        yield
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
