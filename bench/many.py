"""The run with a hundred models more, where what is paid for each of them shows."""

from __future__ import annotations

from collections.abc import Iterator

from bench import run
from bench.harness import Figure
from bench.stand import Stand

MODELS = 100
MORE = f" with {MODELS} models more"
# A table each, as quick as tables can be: ten chains side by side, each model reading the one before it.
TEXT = """{{{{ config(materialized='table', schema='marts') }}}}
select order_id, {number} as number from {{{{ ref('{before}') }}}} limit 100
"""


def measure(stand: Stand, rounds: int) -> Iterator[Figure]:
    """As `bench.run.measure`."""
    folder = stand.folder / "dbt_project" / "models" / "bench"
    folder.mkdir()
    for number in range(MODELS):
        before = f"bench_{number - 10:03}" if number >= 10 else "stg_orders"
        (folder / f"bench_{number:03}.sql").write_text(TEXT.format(number=number, before=before), encoding="utf-8")
    try:
        yield from run.measure(stand, rounds, MORE)
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
