-- Only a warning: rows that were loaded after a run are not yet in the marts.
{{
    config(
        severity='warn',
        tags=['smoke'],
        meta={'dagster': {'ref': {'name': 'fct_daily_sales'}}},
    )
}}

with

reported as (

    select
        order_date,
        revenue

    from {{ ref('fct_daily_sales') }}

),

orders as (

    select * from {{ ref('stg_shop__orders') }}

),

order_items as (

    select
        order_id,
        coalesce(quantity * unit_price - coalesce(discount_amount, 0), 0)
            as revenue

    from {{ ref('stg_shop__order_items') }}

),

calculated as (

    select
        orders.ordered_at::date as order_date,
        coalesce(
            sum(order_items.revenue) filter (where orders.is_sale), 0
        ) as revenue

    from orders
    left join order_items on orders.order_id = order_items.order_id
    group by 1

)

select
    coalesce(reported.order_date, calculated.order_date) as order_date,
    reported.revenue as reported_revenue,
    calculated.revenue as calculated_revenue

from reported
full join calculated on reported.order_date = calculated.order_date
where reported.revenue is distinct from calculated.revenue
