with

-- One row per customer and month with a sale.
active_months as (

    select distinct
        customer_id,
        date_trunc('month', order_date::timestamp)::date as order_month
    from {{ ref('fct_orders') }}
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
    group by cohort_month, order_month

),

-- In its first month, all of a cohort buys.
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

-- Every month that a cohort can have bought in, so that a month without a sale
-- shows as zero.
cohort_months as (

    select
        cohorts.cohort_month,
        cohorts.cohort_size,
        months.activity_month::date as activity_month
    from cohorts
    cross join last_month
    cross join
        generate_series(
            cohorts.cohort_month::timestamp,
            last_month.order_month::timestamp,
            interval '1 month'
        ) as months (activity_month)

),

joined as (

    select
        cohort_months.cohort_month,
        cohort_months.activity_month,
        cohort_months.cohort_size::integer as cohort_size,
        coalesce(activity.active_customers, 0)::integer as active_customers,
        age(
            cohort_months.activity_month, cohort_months.cohort_month
        ) as since_first_order
    from cohort_months
    left join activity
        on
            cohort_months.cohort_month = activity.cohort_month
            and cohort_months.activity_month = activity.order_month

),

final as (

    select
        cohort_month,
        activity_month,
        (
            12 * extract(year from since_first_order)
            + extract(month from since_first_order)
        )::integer as months_since_first_order,
        cohort_size,
        active_customers,
        round(
            active_customers::numeric / cohort_size, 4
        )::numeric(5, 4) as retention_rate
    from joined

)

select * from final
