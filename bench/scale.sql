-- The marts of dbt_project/models, written by hand for psql. A build is compared with this lower limit.

set client_min_messages = warning;
drop schema if exists floor cascade;
create schema floor;

-- With `offset 0`, PostgreSQL cleans an amount only once, instead of once to check it and once to read it.

create table floor.dim_products as
select
    product_id, sku, product_name, category, unit_price, unit_cost,
    (unit_price - unit_cost)::numeric(12, 2) as unit_margin,
    round((unit_price - unit_cost) / nullif(unit_price, 0), 4)::numeric(14, 4) as margin_rate,
    updated_at
from (
    select
        id as product_id, sku, trim(name) as product_name, lower(trim(category)) as category,
        case when pg_input_is_valid(figures, 'numeric(12,2)') then figures::numeric(12, 2) end as unit_price, unit_cost,
        coalesce(updated_at, _loaded_at) at time zone 'UTC' as updated_at
    from raw.raw_products
    cross join lateral (select regexp_replace(unit_price, '[^0-9.-]', '', 'g') as figures offset 0) as tidied
) as products;

create table floor.fct_orders as
with items as (
    select
        order_id, count(*)::integer as line_count, sum(coalesce(quantity, 0))::integer as unit_count,
        sum(coalesce(quantity * unit_price, 0)) as gross_amount,
        coalesce(sum(discount_amount) filter (where quantity * unit_price is not null), 0) as discount_amount,
        sum(coalesce(quantity * unit_cost, 0)) as cost,
        sum(extract(epoch from _loaded_at)) as loads
    from raw.raw_order_items
    group by order_id
),
payments as (
    select
        order_id, sum(amount) filter (where succeeded) as paid, max(paid_at) filter (where succeeded) as paid_at,
        max(paid_at) as tried_at, sum(extract(epoch from _loaded_at)) as loads
    from (
        select
            order_id, paid_at, _loaded_at,
            case when pg_input_is_valid(figures, 'numeric(12,2)') then figures::numeric(12, 2) end as amount,
            lower(trim(status)) = 'succeeded' as succeeded
        from raw.raw_payments
        cross join lateral (select regexp_replace(amount, '[^0-9.-]', '', 'g') as figures offset 0) as tidied
    ) as payments
    group by order_id
),
returns as (
    select
        order_id, sum(refund_amount) as refund_amount, max(returned_at) as returned_at,
        sum(extract(epoch from returns._loaded_at)) as loads
    from raw.raw_returns as returns
    inner join raw.raw_order_items as items on items.id = returns.order_item_id
    group by order_id
),
orders as (
    select
        id, customer_id, coalesce(ordered_at, updated_at, _loaded_at) as ordered_at, updated_at, order_status, loads
    from (
        select
            *, sum(extract(epoch from _loaded_at)) over (partition by id) as loads,
            row_number() over (
                partition by id
                order by updated_at desc nulls last, _loaded_at desc, order_status, customer_id, ordered_at
            ) as version
        from (
            select *, coalesce(replace(lower(trim(status)), 'canceled', 'cancelled'), 'unknown') as order_status from raw.raw_orders
        ) as orders
    ) as versions
    where version = 1
)
select
    orders.id as order_id, customer_id, order_status,
    coalesce(line_count, 0) as line_count, coalesce(unit_count, 0) as unit_count,
    coalesce(gross_amount, 0)::numeric(12, 2) as gross_amount, coalesce(discount_amount, 0)::numeric(12, 2) as discount_amount,
    coalesce(gross_amount - discount_amount, 0)::numeric(12, 2) as revenue, coalesce(cost, 0)::numeric(12, 2) as cost,
    coalesce(gross_amount - discount_amount - cost, 0)::numeric(12, 2) as margin,
    coalesce(refund_amount, 0)::numeric(12, 2) as refund_amount,
    (coalesce(gross_amount - discount_amount, 0) - coalesce(refund_amount, 0))::numeric(12, 2) as net_revenue,
    coalesce(paid, 0)::numeric(12, 2) as amount_paid,
    (paid_at at time zone 'UTC')::date - (ordered_at at time zone 'UTC')::date as days_to_pay,
    (
        coalesce(orders.loads, 0) + coalesce(items.loads, 0) + coalesce(payments.loads, 0) + coalesce(returns.loads, 0)
    )::numeric(24, 6) as load_fingerprint,
    order_status in ('shipped', 'completed', 'returned') as is_sale,
    coalesce(coalesce(paid, 0) = gross_amount - discount_amount, false) as is_fully_paid,
    (ordered_at at time zone 'UTC')::date as order_date, ordered_at at time zone 'UTC' as ordered_at,
    greatest(coalesce(updated_at, ordered_at), tried_at, returned_at) at time zone 'UTC' as last_activity_at
from orders
left join items on items.order_id = orders.id
left join payments on payments.order_id = orders.id
left join returns on returns.order_id = orders.id;

analyze floor.fct_orders;

create table floor.fct_daily_sales as
select
    order_date, count(*)::integer as orders_placed, (count(*) filter (where is_sale))::integer as orders_sold,
    (count(*) filter (where order_status = 'cancelled'))::integer as orders_cancelled,
    coalesce(sum(unit_count) filter (where is_sale), 0)::integer as units_sold,
    coalesce(sum(revenue) filter (where is_sale), 0)::numeric(12, 2) as revenue,
    coalesce(sum(cost) filter (where is_sale), 0)::numeric(12, 2) as cost,
    coalesce(sum(margin) filter (where is_sale), 0)::numeric(12, 2) as margin,
    coalesce(sum(refund_amount) filter (where is_sale), 0)::numeric(12, 2) as refund_amount,
    coalesce(sum(net_revenue) filter (where is_sale), 0)::numeric(12, 2) as net_revenue,
    max(last_activity_at) as last_activity_at
from floor.fct_orders
group by order_date;

create table floor.dim_customers as
select
    id as customer_id, trim(first_name) as first_name, trim(last_name) as last_name, lower(trim(email)) as email,
    coalesce(upper(nullif(trim(country), '')), 'unknown') as country_code,
    case when value >= 2000 then 'high_value' when value >= 500 then 'medium_value' else 'low_value' end as customer_segment,
    coalesce(order_count, 0) as order_count, coalesce(value, 0)::numeric(12, 2) as lifetime_value,
    signed_up_at at time zone 'UTC' as signed_up_at, first_ordered_at, last_ordered_at
from raw.raw_customers
left join (
    select
        customer_id, count(*)::integer as order_count, min(ordered_at) as first_ordered_at, max(ordered_at) as last_ordered_at,
        sum(net_revenue) as value
    from floor.fct_orders where is_sale
    group by customer_id
) as orders on orders.customer_id = raw_customers.id;

create table floor.fct_daily_category_sales as
select
    order_date, coalesce(category, 'unknown') as category, count(distinct order_id)::integer as orders_sold,
    sum(units)::integer as units_sold, sum(discount)::numeric(12, 2) as discount_amount, sum(gross - discount)::numeric(12, 2) as revenue,
    coalesce(sum(returns.refund_amount), 0)::numeric(12, 2) as refund_amount,
    (sum(gross - discount) - coalesce(sum(returns.refund_amount), 0))::numeric(12, 2) as net_revenue,
    sum(gross - discount - cost_of_goods)::numeric(12, 2) as margin
from floor.fct_orders
inner join (
    select
        id, order_id, product_id, coalesce(quantity, 0) as units, coalesce(quantity * unit_price, 0) as gross,
        case when quantity * unit_price is null then 0 else coalesce(discount_amount, 0) end as discount,
        coalesce(quantity * unit_cost, 0) as cost_of_goods
    from raw.raw_order_items
) as items using (order_id)
left join floor.dim_products using (product_id)
left join (
    select order_item_id, sum(refund_amount) as refund_amount from raw.raw_returns group by 1
) as returns on returns.order_item_id = items.id
where is_sale
group by 1, 2;

create table floor.rpt_sales_summary as
select
    date_trunc('month', order_date)::date as sales_month, category, sum(orders_sold)::integer as orders_sold,
    sum(units_sold)::integer as units_sold, sum(discount_amount)::numeric(12, 2) as discount_amount, sum(revenue)::numeric(12, 2) as revenue,
    sum(refund_amount)::numeric(12, 2) as refund_amount, sum(net_revenue)::numeric(12, 2) as net_revenue,
    sum(margin)::numeric(12, 2) as margin, round(sum(margin) / nullif(sum(revenue), 0), 4)::numeric(14, 4) as margin_rate
from floor.fct_daily_category_sales
group by 1, 2;

create table floor.fct_daily_payments as
select
    (paid_at at time zone 'UTC')::date as payment_date, coalesce(replace(lower(trim(method)), ' ', '_'), 'unknown') as payment_method,
    count(*)::integer as attempts,
    (count(*) filter (where lower(trim(status)) = 'failed'))::integer as failed_attempts,
    coalesce(sum(amount) filter (where lower(trim(status)) = 'succeeded'), 0)::numeric(12, 2) as amount_received,
    coalesce(sum(amount) filter (where lower(trim(status)) = 'refunded'), 0)::numeric(12, 2) as amount_paid_back
from (
    select paid_at, method, status, case when pg_input_is_valid(figures, 'numeric(12,2)') then figures::numeric(12, 2) end as amount
    from raw.raw_payments
    cross join lateral (select regexp_replace(amount, '[^0-9.-]', '', 'g') as figures offset 0) as tidied
    where paid_at >= '2024-01-01Z' and paid_at < (date_trunc('year', now() at time zone 'UTC') + interval '1 year') at time zone 'UTC'
) as payments
group by 1, 2;

create table floor.rpt_customer_cohorts as
with active as (
    select distinct customer_id, date_trunc('month', order_date)::date as month from floor.fct_orders
    where is_sale and customer_id is not null
),
counted as (
    select cohort, month, count(*) as customers
    from (select month, min(month) over (partition by customer_id) as cohort from active) as active
    group by 1, 2
)
select
    cohorts.cohort as cohort_month, m::date as activity_month,
    (12 * extract(year from age(m::date, cohorts.cohort)) + extract(month from age(m::date, cohorts.cohort)))::integer as months_since_first_order,
    size::integer as cohort_size, coalesce(counted.customers, 0)::integer as active_customers,
    round(coalesce(counted.customers, 0)::numeric / size, 4)::numeric(5, 4) as retention_rate
from (select cohort, customers as size from counted where month = cohort) as cohorts
cross join generate_series(cohorts.cohort::timestamp, (select max(month) from counted)::timestamp, interval '1 month') as m
left join counted on counted.cohort = cohorts.cohort and counted.month = m::date;
