-- Only a warning: a line may be loaded between the two marts.
{{
    config(
        severity='warn',
        meta={'dagster': {'ref': {'name': 'rpt_sales_summary'}}},
    )
}}

with

summed as (

    select
        sales_month,
        sum(units_sold) as units_sold,
        sum(revenue) as revenue,
        sum(refund_amount) as refund_amount,
        sum(margin) as margin

    from {{ ref('rpt_sales_summary') }}
    group by 1

),

days as (

    select
        date_trunc('month', order_date)::date as sales_month,
        sum(units_sold) as units_sold,
        sum(revenue) as revenue,
        sum(refund_amount) as refund_amount,
        sum(margin) as margin

    from {{ ref('fct_daily_sales') }}
    group by 1

)

-- A month without any order line of a sale is only in the days, with zeros.
select
    coalesce(summed.sales_month, days.sales_month) as sales_month,
    summed.revenue as summary_revenue,
    days.revenue as days_revenue

from summed
full join days on summed.sales_month = days.sales_month
where
    coalesce(summed.units_sold, 0) is distinct from days.units_sold
    or coalesce(summed.revenue, 0) is distinct from days.revenue
    or coalesce(summed.refund_amount, 0) is distinct from days.refund_amount
    or coalesce(summed.margin, 0) is distinct from days.margin
