with

orders as (

    select * from {{ ref('fct_orders') }}

),

-- One row per customer and month with a sale.
active_months as (

    select distinct
        customer_id,
        date_trunc('month', order_date::timestamp)::date as order_month
    from orders
    where
        is_sale
        and customer_id is not null

),

customers as (

    select
        order_month,
        min(order_month) over (partition by customer_id) as cohort_month
    from active_months

),

activity as (

    select
        cohort_month,
        order_month,
        count(*) as active_customers
    from customers
    group by 1, 2

),

-- In its first month, every customer of a cohort buys.
cohorts as (

    select
        cohort_month,
        active_customers as cohort_size
    from activity
    where order_month = cohort_month

),

last_month as (

    select max(order_month) as order_month from activity

),

-- Every month in which a cohort can have bought, so that a month without a sale
-- has a row with zero.
cohort_months as (

    select
        cohorts.cohort_month,
        cohorts.cohort_size,
        {{
            periods(
                'month', 'cohorts.cohort_month', 'last_month.order_month'
            )
        }} as month_start
    from cohorts
    cross join last_month

),

dated as (

    select
        cohort_month,
        cohort_size,
        month_start::date as activity_month
    from cohort_months

),

joined as (

    select
        dated.cohort_month,
        dated.activity_month,
        dated.cohort_size::integer as cohort_size,
        coalesce(activity.active_customers, 0)::integer as active_customers
    from dated
    left join activity
        on
            dated.cohort_month = activity.cohort_month
            and dated.activity_month = activity.order_month

),

final as (

    select
        cohort_month,
        activity_month,
        (
            12 * extract(year from activity_month)
            + extract(month from activity_month)
            - 12 * extract(year from cohort_month)
            - extract(month from cohort_month)
        )::integer as months_since_first_order,
        cohort_size,
        active_customers,
        round(
            active_customers::numeric / cohort_size, 4
        )::numeric(5, 4) as retention_rate
    from joined

)

select * from final
