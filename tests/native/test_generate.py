"""`generate`: the same shop each time, the same marts as from hand-written SQL, and the way back to the seeds."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from bench.scale import MARTS
from switchyard import generate

from ..interruptions import ended, typed
from ..stacks import ROOT, wait_until

TABLES = ("raw_customers", "raw_order_items", "raw_orders", "raw_payments", "raw_products", "raw_returns")
ORDERS = 1500
# The digest of the raw tables at this size with the seed 1; it is the same on every machine and runtime. After a change of
# switchyard/generate.sql that is meant to change them, take the new one from the failing assertion.
DIGEST = "9d44f436f77b74da1b6924fbc7de828c"


def digest(stack) -> str:
    """A digest of the raw tables' rows, without their load times."""
    rows = " union all ".join(f"select '{name}' || (to_jsonb(t) - '_loaded_at')::text as row from raw.{name} as t" for name in TABLES)
    return stack.sql(f'select md5(string_agg(row, chr(10) order by row collate "C")) from ({rows}) as all_rows')


def differing(stack) -> dict[str, str]:
    """For each mart, the number of rows that differ from those that `bench/scale.sql` builds from the same raw tables."""
    stack.invoke("psql", stdin=(ROOT / "bench" / "scale.sql").read_text(encoding="utf-8"))
    pairs = (("marts", "floor"), ("floor", "marts"))
    counts = {}
    for mart in MARTS:
        both = " union all ".join(f"(table {one}.{mart} except all table {other}.{mart})" for one, other in pairs)
        counts[mart] = stack.sql(f"select count(*) from ({both}) as differing")
    return counts


@pytest.fixture(scope="module")
def shop(stack, reference):
    """A generated shop; afterwards, the seeds are restored as docs/shop.md describes it."""
    stack.on("dagster")
    assert "invoke generate --orders 10000" in stack.invoke("generate", "--days", "1", code=2).stderr
    refused = stack.invoke("generate", "--orders", str(ORDERS), code=2, stdin="n\n")
    assert "Replace all data in the schemas intermediate, marts, raw, snapshots, staging" in refused.stdout
    assert stack.hashes() == reference
    stack.invoke("generate", "--orders", str(ORDERS), stdin="y\n")
    yield stack
    stack.invoke("sql", "drop schema raw cascade")
    stack.invoke("sql", "drop schema if exists floor cascade")
    stack.invoke("run", "--job", "full_refresh")
    assert stack.hashes() == reference


def test_the_same_size_and_seed_give_the_same_shop(shop) -> None:
    assert digest(shop) == DIGEST
    shop.invoke("generate", "--orders", str(ORDERS), "--seed", "2", "--yes")
    assert digest(shop) != DIGEST
    shop.invoke("generate", "--orders", str(ORDERS), "--yes")
    assert digest(shop) == DIGEST


def test_an_interrupt_leaves_the_data_unchanged(shop) -> None:
    before = digest(shop)
    command = typed(shop, "generate", "--orders", "1000000", "--yes")
    filling = f"select count(*) from pg_stat_activity where application_name = '{generate.NAME}' and query like 'call%'"
    wait_until(lambda: command.poll() is not None or shop.ask(filling) == "1", 60)
    command.send_signal(signal.SIGINT)
    code, output = ended(command)
    assert code == 130, output
    assert digest(shop) == before


def test_the_tables_are_vacuumed_before_the_first_build(shop) -> None:
    vacuumed = "select relname from pg_stat_user_tables where schemaname = 'raw' and last_vacuum is not null order by relname"
    assert tuple(shop.sql(vacuumed).split()) == TABLES


def test_the_marts_equal_those_of_hand_written_sql_also_after_another_day(shop) -> None:
    shop.invoke("run")
    assert differing(shop) == dict.fromkeys(MARTS, "0")
    before = digest(shop)
    shop.invoke("generate", "--days", "3")
    assert digest(shop) != before
    shop.invoke("run")
    assert differing(shop) == dict.fromkeys(MARTS, "0")


def test_seeds_leave_the_generated_tables_alone_and_a_users_own_seed_is_loaded(shop) -> None:
    before = digest(shop)
    with shop.edited("seeds/mine.csv", "id\n1\n"):
        shop.invoke("run", "--select", "resource_type:seed")
    assert digest(shop) == before
    assert shop.sql("select count(*) from raw.mine") == "1"
    shop.invoke("sql", "drop table raw.mine")


def test_nothing_is_replaced_while_a_session_is_active(shop) -> None:
    before = digest(shop)
    argv = [sys.executable, "-m", "invoke", "sql", "select pg_sleep(60)"]
    with subprocess.Popen(argv, cwd=shop.folder, env=shop.env, stdout=subprocess.DEVNULL) as busy:
        wait_until(lambda: shop.sql("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1")
        refused = shop.invoke("generate", "--orders", "10", "--yes", code=13).stderr
        for process in psutil.Process(busy.pid).children(recursive=True):
            process.kill()
    shop.invoke("sql", "select pg_terminate_backend(pid, 5000) from pg_stat_activity where wait_event = 'PgSleep'")
    assert "select pg_sleep(60)" in refused
    assert digest(shop) == before


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        pytest.param([], "either --orders or --days", id="neither"),
        pytest.param(["--orders", "10", "--days", "1"], "either --orders or --days", id="both"),
        pytest.param(["--orders", "1000000000"], "not a positive whole number", id="too many digits"),
        pytest.param(["--orders", "100000001"], "too many", id="more orders than keys"),
        pytest.param(["--days", "100000"], "in the future", id="days in the future"),
        pytest.param(["--days", "10000000"], "in the future", id="days beyond the calendar"),
    ],
)
def test_impossible_sizes_are_refused(shop, typed, message) -> None:
    assert message in shop.invoke("generate", *typed, "--yes", code=2).stderr
