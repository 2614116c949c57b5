-- New raw tables, which replace everything that the role dbt owns; the types are those of dbt_project/seeds/raw/_seeds.yml.
-- The content of raw_products.csv follows.

set switchyard.replace = on;
create schema raw;

create table raw.raw_customers (
    id integer, first_name text, last_name text, email text, country text, signed_up_at timestamptz,
    _loaded_at timestamptz not null default now()
);
create table raw.raw_products (
    id integer, sku text, name text, category text, unit_price text, unit_cost numeric(12, 2), updated_at timestamptz,
    _loaded_at timestamptz not null default now()
);
create table raw.raw_orders (
    id integer, customer_id integer, status text, ordered_at timestamptz, updated_at timestamptz,
    _loaded_at timestamptz not null default now()
);
create table raw.raw_order_items (
    id integer, order_id integer, product_id integer, quantity integer, unit_price numeric(12, 2), unit_cost numeric(12, 2),
    discount_amount numeric(12, 2), _loaded_at timestamptz not null default now()
);
create table raw.raw_payments (
    id integer, order_id integer, method text, status text, amount text, paid_at timestamptz,
    _loaded_at timestamptz not null default now()
);
create table raw.raw_returns (
    id integer, order_item_id integer, quantity integer, reason text, refund_amount numeric(12, 2), returned_at timestamptz,
    _loaded_at timestamptz not null default now()
);
-- What `invoke generate --days` continues.
create table raw.generated (orders bigint, seed bigint, last_day date);

copy raw.raw_products (id, sku, name, category, unit_price, unit_cost, updated_at) from stdin with (format csv, header);
