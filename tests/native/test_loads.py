"""After any sequence of loads, the shop's marts equal those of a full refresh, and those of the hand-written SQL in `bench/scale.sql`."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from bench import scale

from ..stacks import LONG, ROOT

CHANGED = ("fct_orders+", "fct_daily_payments")

# Few keys and days, so that loads change the rows of earlier loads.
ORDERS = st.integers(1, 5)
STATUSES = st.sampled_from(["pending", "Shipped ", "completed", "returned", "canceled"])
DAYS = st.sampled_from(["2024-07-01", "2024-07-02", "2025-12-31", "2026-06-30", "2099-01-01"])
# In the first and the last year of fct_daily_payments, in a year before, and in a future year.
YEAR = datetime.now(timezone.utc).year
PAID = st.sampled_from(["2023-12-31", "2024-01-01", f"{YEAR}-01-01", "2099-01-01"])

EMPTY = "truncate raw.raw_orders, raw.raw_order_items, raw.raw_payments, raw.raw_returns;"
AGAIN = "".join(f"update raw.raw_{table} set _loaded_at = now();" for table in ("orders", "order_items", "payments", "returns"))
NO_TARGET = "truncate marts.fct_orders, marts.fct_daily_payments;"
ORDER = "insert into raw.raw_orders (id, customer_id, status, ordered_at, updated_at) values ({}, 1, '{}', '{} 12:00Z', '{} 12:00Z');"
LINE = (
    "insert into raw.raw_order_items (id, order_id, product_id, quantity, unit_price, unit_cost, discount_amount)"
    " select coalesce(max(id), 0) + 1, {}, {}, {}, 10, 6, 1 from raw.raw_order_items;"
)
PAYMENT = (
    "insert into raw.raw_payments (id, order_id, method, status, amount, paid_at)"
    " select coalesce(max(id), 0) + 1, {}, 'paypal', 'succeeded', '$9.00', '{} 13:00Z' from raw.raw_payments;"
)
# A row whose transaction began before the newest load and ended after it.
LATE = "update raw.raw_orders set status = '{1}', _loaded_at = now() - interval '3 hours' where id = {0};"
RETURN = (
    "insert into raw.raw_returns (id, order_item_id, quantity, reason, refund_amount, returned_at)"
    " select (select coalesce(max(id), 0) from raw.raw_returns) + 1, min(id), 1, 'defective', 2, '{1} 14:00Z'"
    " from raw.raw_order_items where order_id = {0} having count(*) > 0;"
)
CHANGE = "update raw.raw_orders set status = '{1}', _loaded_at = now() where id = {0};"
MOVE = "update raw.raw_orders set ordered_at = '{1} 12:00Z', _loaded_at = now() where id = {0};"
NO_LINES = "delete from raw.raw_order_items where order_id = {0};"
NO_RETURNS = "delete from raw.raw_returns where order_item_id in (select id from raw.raw_order_items where order_id = {0});"
NO_PAYMENTS = "delete from raw.raw_payments where order_id = {0};"
NO_VERSION = "delete from raw.raw_orders where ctid = (select ctid from raw.raw_orders where id = {0} order by updated_at desc limit 1);"
NO_ORDER = "".join(f"delete from raw.raw_{table} where {key} = {{0}};" for table, key in (("orders", "id"), ("order_items", "order_id")))
LINE_OF_NULLS = (
    "insert into raw.raw_order_items (id, order_id, product_id, quantity, unit_price, unit_cost, discount_amount)"
    " select coalesce(max(id), 0) + 1, {0}, null, 2, 10, null, null from raw.raw_order_items;"
)
# An order and a payment of which only the keys are known, and a payment without an order.
NULLS = (
    "insert into raw.raw_orders (id) values (6);"
    "insert into raw.raw_payments (id, order_id, amount) select coalesce(max(id), 0) + 1, 6, 'N/A' from raw.raw_payments;"
    "insert into raw.raw_payments (id, amount) select coalesce(max(id), 0) + 1, '-' from raw.raw_payments;"
)

OPERATIONS = st.one_of(
    st.builds(ORDER.format, ORDERS, STATUSES, DAYS, DAYS),
    st.builds(LINE.format, ORDERS, st.integers(1, 3), st.integers(1, 4)),
    st.builds(PAYMENT.format, ORDERS, PAID),
    st.builds(RETURN.format, ORDERS, DAYS),
    st.builds(CHANGE.format, ORDERS, STATUSES),
    st.builds(LATE.format, ORDERS, STATUSES),
    st.builds(MOVE.format, ORDERS, DAYS),
    st.builds(str.format, st.sampled_from([NO_LINES, NO_PAYMENTS, NO_RETURNS, NO_VERSION, NO_ORDER, LINE_OF_NULLS]), ORDERS),
    st.sampled_from([AGAIN, EMPTY, NO_TARGET, NULLS]),
)
LOADS = st.lists(st.lists(OPERATIONS, min_size=1, max_size=12).map("".join), min_size=2, max_size=4)


def load(stack, sql: str, *args: str) -> None:
    """Execute a loader's statements in one transaction, and then run dbt, incrementally by default."""
    stack.invoke("psql", stdin=f"begin;\n{sql}\ncommit;\n")
    run(stack, *args)


def run(stack, *args: str) -> None:
    """Run the models that a load can change, without their tests."""
    stack.invoke("dbt", "--quiet", "run", "--select", *CHANGED, *args)


def differing(stack) -> dict[str, str]:
    """The number of differing rows of each mart that is not equal to that of the hand-written SQL."""
    stack.invoke("psql", stdin=(ROOT / "bench" / "scale.sql").read_text(encoding="utf-8"))
    counts = " union all ".join(
        f"select '{mart}', count(*) from ((table marts.{mart} except all table floor.{mart})"
        f" union all (table floor.{mart} except all table marts.{mart})) as rows"
        for mart in scale.MARTS
    )
    found = dict(line.split("\t") for line in stack.sql(counts).splitlines())
    return {mart: rows for mart, rows in found.items() if rows != "0"}


@pytest.fixture(scope="module")
def shop(stack, reference):
    """A generated shop, whose orders the tests replace; afterwards, the seeds are restored."""
    stack.on("dagster")
    stack.invoke("generate", "--orders", "10", "--yes")
    stack.invoke("dbt", "--quiet", "build", "--exclude", *(f"resource_type:{kind}" for kind in ("seed", "test", "unit_test")))
    yield stack
    stack.invoke("sql", "drop schema raw, snapshots cascade; drop schema if exists floor cascade")
    stack.invoke("run", "--job", "full_refresh")
    assert stack.hashes() == reference


@pytest.fixture
def three_orders(shop):
    """Two days with one sold order each, and a third day with a pending order, all loaded and built."""
    days = {1: "2024-07-01", 2: "2024-07-02", 3: "2026-06-30"}
    rows = (
        ORDER.format(order, "pending" if order == 3 else "completed", day, day) + LINE.format(order, 1, 1) for order, day in days.items()
    )
    load(shop, EMPTY + "".join(rows), "--full-refresh")
    assert shop.sql("select count(*) from marts.fct_orders") == "3"
    return shop


def test_an_empty_target_is_filled(three_orders) -> None:
    load(three_orders, NO_TARGET)
    assert three_orders.sql("select count(*) from marts.fct_orders") == "3"


@pytest.mark.long
def test_a_row_that_is_loaded_late_counts_at_any_age(three_orders) -> None:
    load(three_orders, PAYMENT.format(1, "2024-07-01"))
    assert three_orders.sql("select amount_paid from marts.fct_orders where order_id = 1") == "9.00"
    load(three_orders, LATE.format(1, "cancelled"))
    assert three_orders.sql("select order_status from marts.fct_orders where order_id = 1") == "cancelled"


@pytest.mark.long
def test_a_row_dated_2099_does_not_block_later_ones(three_orders) -> None:
    load(three_orders, ORDER.format(4, "completed", "2026-06-30", "2099-01-01") + LINE.format(4, 1, 1))
    load(three_orders, ORDER.format(5, "completed", "2026-06-30", "2026-06-30") + LINE.format(5, 1, 1) + CHANGE.format(3, "completed"))
    assert three_orders.sql("select orders_sold from marts.fct_daily_sales where order_date = '2026-06-30'") == "3"


@pytest.mark.parametrize(
    "gone", [MOVE.format(1, "2025-12-31"), pytest.param(NO_ORDER.format(1), marks=pytest.mark.long)], ids=["moved", "deleted"]
)
def test_a_day_whose_sales_vanish_is_removed(three_orders, gone) -> None:
    rows = "select count(*) from marts.{} where order_date = '2024-07-01'"
    assert three_orders.sql(rows.format("fct_daily_sales")) == "1"
    load(three_orders, gone)
    assert three_orders.sql(rows.format("fct_daily_sales")) == "0"
    assert three_orders.sql(rows.format("fct_daily_category_sales")) == "0"


def test_a_day_whose_payments_vanish_is_removed(three_orders) -> None:
    days = "select string_agg(payment_date || ' ' || amount_received, ', ' order by payment_date) from marts.fct_daily_payments"
    load(three_orders, PAYMENT.format(1, "2099-01-01"))  # a future year has no batch
    first, second = f"{YEAR - 2}-07-01", f"{YEAR - 1}-07-01"
    load(three_orders, PAYMENT.format(1, first) + PAYMENT.format(2, second) + PAYMENT.format(2, second))
    assert three_orders.sql(days) == f"{first} 9.00, {second} 18.00"
    load(three_orders, NO_PAYMENTS.format(1) + "delete from raw.raw_payments where id = (select max(id) from raw.raw_payments);")
    assert three_orders.sql(days) == f"{second} 9.00"


def test_a_build_with_odd_rows_completes_the_marts(three_orders) -> None:
    odd = ORDER.format(4, "lost", "2099-01-01", "2099-01-01") + LINE.format(4, 99999, -1) + LINE_OF_NULLS.format(1) + NULLS
    three_orders.invoke("psql", stdin=f"begin;\n{odd}\ncommit;\n")
    output = three_orders.invoke("dbt", "build", "--exclude", "resource_type:seed", "resource_type:unit_test").stdout
    assert "ERROR=0 SKIP=0" in output
    for test in ("no_future_order_dates", "no_negative_quantities", "not_null_stg_shop__payments_amount"):
        assert f"Warning in test {test}" in output
    assert differing(three_orders) == {}
    amounts = "select string_agg(order_id || ' ' || revenue || ' ' || coalesce(order_date::text, ''), ', ' order by order_id)"
    assert three_orders.sql(f"{amounts} from marts.fct_orders where order_id < 3") == "1 29.00 2024-07-01, 2 9.00 2024-07-02"


@pytest.mark.long
def test_a_day_without_sales_has_none_by_category(three_orders) -> None:
    load(three_orders, CHANGE.format(1, "canceled"))
    assert three_orders.sql("select orders_sold from marts.fct_daily_sales where order_date = '2024-07-01'") == "0"
    assert three_orders.sql("select count(*) from marts.fct_daily_category_sales where order_date = '2024-07-01'") == "0"


@pytest.mark.long
def test_an_order_without_lines_stays_with_a_warning(three_orders) -> None:
    load(three_orders, NO_LINES.format(1) + ORDER.format(4, "completed", "2024-07-01", "2024-07-01"))
    lines = "select string_agg(order_id || ' ' || line_count || ' ' || revenue, ', ' order by order_id)"
    assert three_orders.sql(f"{lines} from marts.fct_orders where line_count = 0") == "1 0 0.00, 4 0 0.00"
    output = three_orders.invoke("dbt", "test", "--select", "shop_checks_at_least_fct_orders_line_count__1").stdout
    assert "Got 2 results" in output
    assert "WARN=1" in output


@pytest.mark.long
def test_of_two_versions_with_the_same_time_one_counts_in_any_order(three_orders) -> None:
    versions = [ORDER.format(4, status, "2026-06-30", "2026-06-30") for status in ("shipped", "completed")]
    for order in (versions, versions[::-1]):
        load(three_orders, NO_ORDER.format(4) + "".join(order))
        assert three_orders.sql("select order_status from marts.fct_orders where order_id = 4") == "completed"


def test_a_product_that_comes_back_or_changes_without_a_new_time_gets_a_version(shop) -> None:
    for change in (
        "select",
        "create table raw.kept as table raw.raw_products; delete from raw.raw_products where id = 1;"
        " update raw.raw_products set unit_price = '7.00' where id = 2;",
        "insert into raw.raw_products select * from raw.kept where id = 1; update raw.raw_products set unit_price = '8.00' where id = 2;",
        "delete from raw.raw_products where id = 1; update raw.raw_products set updated_at = '2099-01-01', unit_cost = 1 where id = 2;",
    ):
        shop.invoke("psql", stdin=f"{change};\n")
        shop.invoke("dbt", "build", "--select", "product_prices", "dim_product_prices")  # with the tests of their keys
    versions = "string_agg(concat_ws(' ', product_id, unit_price, unit_cost, is_current), ', ' order by product_id, valid_from)"
    found = shop.sql(f"select {versions} from marts.dim_product_prices where product_id < 3")
    assert found == "1 79.00 41.08 f, 1 79.00 41.08 f, 2 99.00 54.45 f, 2 7.00 54.45 f, 2 8.00 54.45 f, 2 8.00 1.00 t"
    following = "lead(valid_from) over (partition by product_id order by valid_from)"
    lasting = f"select valid_from, valid_to, {following} as following from marts.dim_product_prices where product_id < 3"
    wrong = "valid_to <= valid_from or valid_to > following or valid_to is null and following is not null or valid_from > now()"
    assert shop.sql(f"select count(*) from ({lasting}) as versions where {wrong}") == "0"
    shop.invoke("psql", stdin="truncate raw.raw_products; insert into raw.raw_products table raw.kept; drop table raw.kept;\n")


def test_a_seed_leaves_a_loaders_table_alone(shop) -> None:
    shop.invoke("psql", stdin=f"drop table if exists raw.generated; {EMPTY} {ORDER.format(1, 'pending', '2024-07-01', '2024-07-01')}")
    output = shop.invoke("dbt", "seed", "--full-refresh", "--select", "raw_orders").stdout
    assert 'raw_orders" is a table, and is not changed' in output.replace("\n", "")
    assert shop.sql("select count(*) from raw.raw_orders") == "1"
    assert shop.sql("select count(*) > 1 from raw.seed_orders") == "t"


@settings(
    max_examples=60,
    database=None,
    deadline=None,
    phases=list(Phase) if LONG else [Phase.explicit],  # the sequence below has each kind of change
    suppress_health_check=list(HealthCheck),
)
@example(
    loads=[
        EMPTY
        + ORDER.format(1, "completed", "2024-07-01", "2024-07-01")
        + LINE.format(1, 1, 2)
        + ORDER.format(2, "pending", "2024-07-01", "2099-01-01")
        + PAYMENT.format(2, "2023-12-31"),
        MOVE.format(1, "2025-12-31") + PAYMENT.format(1, "2024-01-01") + NO_TARGET + LINE.format(2, 2, 1) + LATE.format(2, "Shipped "),
        RETURN.format(2, "2024-07-02")
        + NO_LINES.format(1)
        + NO_PAYMENTS.format(1)
        + NULLS
        + LINE_OF_NULLS.format(2)
        + ORDER.format(3, "completed", "2024-07-02", "2024-07-02"),
    ]
)
@given(loads=LOADS)
def test_any_sequence_of_loads_ends_with_the_marts_of_a_full_refresh(shop, loads) -> None:
    for one in loads:
        load(shop, one)
    assert differing(shop) == {}
    run(shop, "--full-refresh")
    assert differing(shop) == {}
