"""The project at scale: a build compared with the same marts written by hand in SQL, one more day, and what the tests cost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.harness import Figure, interleaved, ratio, timed
from bench.rig import Rig
from bench.run import bare
from switchyard import bootstrap

SIZES = tuple(int(size) for size in os.environ.get("BENCH_ORDERS", "10000,1000000").split(","))  # 10000000 takes half an hour
BY_HAND = Path(__file__).with_name("scale.sql")
MARTS = (
    "dim_customers", "dim_products", "fct_daily_category_sales", "fct_daily_payments", "fct_daily_sales", "fct_orders",
    "rpt_customer_cohorts", "rpt_sales_summary",
)  # fmt: skip
WHERE = "dagster"  # the orchestrator whose dbt is used

# The raw rows that the last load added or changed: all of them have the same load time.
ARRIVED = " + ".join(
    f"(select count(*) from raw.{table} where _loaded_at = (select max(_loaded_at) from raw.raw_orders))"
    for table in ("raw_orders", "raw_order_items", "raw_payments", "raw_returns")
)


# MiB with indexes, of the tables in some of dbt's schemas: the raw ones, or those of the models.
SIZE = """
select sum(pg_total_relation_size(relation.oid)) / 1048576.0
from pg_class as relation inner join pg_namespace as schema on relation.relnamespace = schema.oid
where relation.relkind = 'r' and schema.nspowner = 'dbt'::regrole and schema.nspname {} and schema.nspname <> 'floor'
"""


class Day(NamedTuple):
    """One more day: the seconds of the incremental models and of all models, and how many raw rows were added or changed."""

    incremental: float
    all: float
    rows: int


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """Measure the models ÷ the same by hand, the tests ÷ the models, and one more day at each size ÷ one at the size before.

    Raises:
        AssertionError: the marts differ from those by hand.
    """
    rig.on(WHERE)
    days: dict[int, list[Day]] = {}
    for size in SIZES:
        rig.invoke("generate", "--orders", str(size), "--yes")
        bare(rig, WHERE, "seed")  # unit tests need its columns
        bare(rig, WHERE, "run", "--select", "staging")  # leaves the parse for the commands that count
        bare(rig, WHERE, "snapshot")  # the tests read it
        took = interleaved(
            rounds,
            {
                "models": lambda: bare(rig, WHERE, "run", "--full-refresh").seconds,
                "by hand": lambda: timed(lambda: _by_hand(rig)),
                "tests": lambda: bare(rig, WHERE, "test").seconds,
            },
        )
        _compare(rig)
        yield ratio(f"models at {size:,} orders / the same by hand in psql", took["models"], took["by hand"], 1.4 if size >= 1e6 else None)
        yield ratio(f"tests at {size:,} orders / models", took["tests"], took["models"])
        for what, schemas in (("raw tables", "= 'raw'"), ("tables of the models", "<> 'raw'")):
            yield Figure(f"{what} at {size:,} orders", (float(rig.sql(SIZE.format(schemas))),), unit="MiB")
        days[size] = [_day(rig) for _ in range(rounds)]
        _by_hand(rig)
        _compare(rig)
    for smaller, larger in pairwise(SIZES):
        few, many = days[smaller], days[larger]
        what = f"one more day at {larger:,} orders / at {smaller:,}"
        incremental = [day.incremental for day in many], [day.incremental for day in few]
        yield ratio(f"{what}, incremental models", *incremental)
        per_row = [day.incremental / day.rows for day in many], [day.incremental / day.rows for day in few]
        yield ratio(f"{what}, for each row that came in", *per_row)
        yield ratio(f"{what}, all models", [day.all for day in many], [day.all for day in few])


def _day(rig: Rig) -> Day:
    rig.invoke("generate", "--days", "1")
    rows = int(rig.sql(f"select {ARRIVED}"))
    incremental = bare(rig, WHERE, "run", "--select", "config.materialized:incremental").seconds
    return Day(incremental, incremental + bare(rig, WHERE, "run", "--exclude", "config.materialized:incremental").seconds, rows)


def _by_hand(rig: Rig) -> None:
    argv, env = rig.driver.client("psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", bootstrap.WAREHOUSE)
    rig.command(argv, BY_HAND.read_text(encoding="utf-8"), {**rig.env, **env})


def _compare(rig: Rig) -> None:
    for mart in MARTS:
        both = [f"(table {one}.{mart} except all table {other}.{mart})" for one, other in (("marts", "floor"), ("floor", "marts"))]
        differing = rig.sql(f"select count(*) from ({' union all '.join(both)}) as differing")
        assert differing == "0", f"{differing} rows of {mart} differ from those by hand"
