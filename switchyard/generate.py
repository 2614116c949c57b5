"""A made-up shop of any size in the raw tables, instead of the seeds; the server generates the rows."""

from __future__ import annotations

import tempfile
from datetime import date, datetime, timedelta, timezone

from switchyard import ROOT, bootstrap, console, warehouse
from switchyard import project as projects
from switchyard.errors import BadUsage, NoSpace, StackError
from switchyard.runtimes.runtime import WarehouseRuntime

FIRST_DAY, LAST_DAY = date(2024, 7, 1), date(2026, 6, 30)  # of the seeds, and of a new shop
MOST = 100_000_000  # orders; the keys of order lines, four for each order, then still fit in 32 bits
NAME = "invoke generate"  # the name of the session, by which an interrupted one is found

_VACUUM = "vacuum raw.raw_customers, raw.raw_products, raw.raw_orders, raw.raw_order_items, raw.raw_payments, raw.raw_returns"
_SHOP = "select format('%s %s %s', orders, seed, last_day) from raw.generated"
_EXISTS = "select 1 where to_regclass('raw.generated') is not null"


def _require_shop(runtime: WarehouseRuntime) -> None:
    if not projects.is_shop(runtime.settings):
        raise BadUsage(
            "`generate` makes orders for the shop, and DBT_PROJECT names another project.",
            f"It is {projects.folder(runtime.settings)}.",
            "invoke use shop",
        )


def new(runtime: WarehouseRuntime, orders: int, seed: int, *, yes: bool) -> None:
    """Replace everything that the role ``dbt`` owns with a shop of ``orders`` orders over two years; all or nothing.

    Raises:
        BadUsage: there are too many orders, or the question was not answered with yes.
        RunInProgress: the data is in use.
        NoSpace: the disk is full.
    """
    _require_shop(runtime)
    if orders > MOST:
        raise BadUsage(f"{orders:,} orders are too many.", f"A shop has {MOST:,} at most.", f"invoke generate --orders {MOST}")
    command = f"invoke generate --orders {orders} --seed {seed}"
    with warehouse.server(runtime):
        warehouse.refuse_while_busy(runtime, command)
        existing = warehouse.schemas(runtime)
        question = f"Replace all data in the schemas {', '.join(existing)} with a shop of {orders:,} orders?"
        if existing and not yes and not console.confirm(question):
            raise BadUsage("Nothing was generated.", "The question was not answered with yes.", f"{command} --yes")
        _generate(runtime, orders, seed, FIRST_DAY, LAST_DAY, new=True)


def append(runtime: WarehouseRuntime, days: int) -> None:
    """Add ``days`` days to the generated shop: new orders, and changes to earlier ones.

    Raises:
        BadUsage: there is no generated shop, or its days would be in the future.
        RunInProgress: the data is in use.
        NoSpace: the disk is full.
    """
    _require_shop(runtime)
    with warehouse.server(runtime):
        warehouse.refuse_while_busy(runtime, f"invoke generate --days {days}")
        found = warehouse.query(runtime, _SHOP) if warehouse.query(runtime, _EXISTS) else []
        if not found:
            raise BadUsage(
                "There is no generated shop to add days to.",
                "The raw tables come from the seeds, or do not exist yet.",
                "invoke generate --orders 10000",
            )
        orders, seed, known = found[0].split()
        last = date.fromisoformat(known)
        yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
        if days > (yesterday - last).days:
            raise BadUsage(
                f"The shop's last day is {known}, and {days} more would be in the future.",
                "A test of the dbt project finds orders that were placed later than now.",
                f"invoke generate --days {(yesterday - last).days}" if last < yesterday else "",
            )
        _generate(runtime, int(orders), int(seed), last + timedelta(days=1), last + timedelta(days=days), new=False)


def _generate(runtime: WarehouseRuntime, orders: int, seed: int, first: date, last: date, *, new: bool) -> None:
    variables = {"orders": orders, "seed": seed, "first_day": first, "last_day": last, "new": str(new).lower()}
    options = [word for key, value in variables.items() for word in ("--set", f"{key}={value}")]
    args = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", *options, "--single-transaction", "--file=-"]
    argv, env = runtime.client("psql", *args, "--dbname", bootstrap.WAREHOUSE)
    what = f"a shop of {orders:,} orders" if new else f"the days from {first} to {last}"
    with tempfile.TemporaryFile() as script, console.Waiting("generate", what) as waiting:
        script.write(_script(new).encode())
        script.seek(0)

        def on_line(line: str) -> None:
            waiting.detail(line.rpartition("WARNING:")[2])

        with warehouse.ended_when_interrupted(runtime, NAME):
            done = runtime.runner.follow(argv, on_line, env, stdin=script)
    if done.code:
        kind = NoSpace if "no space left" in done.stderr.lower() else StackError
        raise kind("Nothing was generated; the data is as it was.", done.stderr, "invoke logs --service postgres")
    if not console.dry:
        console.ok(f"Generated {what} after {waiting.seconds:.0f} s")
        console.note("  invoke run builds the marts from it.")
    # Otherwise the first build has to mark each new row as committed, with autovacuum running beside it. A failure costs no more than
    # that.
    with console.Waiting("vacuum", "the raw tables"):
        warehouse.change(runtime, _VACUUM)


def _script(new: bool) -> str:
    """The script for psql: for a new shop, tables with the products of the seed; then, in any case, orders."""
    parts = ["\\encoding UTF8\n", f"set client_min_messages = warning;\nset application_name = '{NAME}';\n"]
    if new:
        products = (ROOT / "dbt_project" / "seeds" / "raw" / "raw_products.csv").read_text(encoding="utf-8")
        parts += [_sql("generate_tables.sql"), products.rstrip("\n"), "\n\\.\n"]
    return "".join([*parts, _sql("generate.sql")])


def _sql(name: str) -> str:
    return (ROOT / "switchyard" / name).read_text(encoding="utf-8")
