with

summed as (

    select
        sales_month,
        sum(units_sold) as units_sold,
        sum(revenue) as revenue,
        sum(refund_amount) as refund_amount,
        sum(margin) as margin

    from {{ ref('rpt_sales_summary') }}
    group by sales_month

),

days as (

    select
        date_trunc('month', order_date)::date as sales_month,
        sum(units_sold) as units_sold,
        sum(revenue) as revenue,
        sum(refund_amount) as refund_amount,
        sum(margin) as margin

    from {{ ref('fct_daily_sales') }}
    group by sales_month
    having sum(units_sold) > 0

)

select
    coalesce(summed.sales_month, days.sales_month) as sales_month,
    summed.revenue as summary_revenue,
    days.revenue as days_revenue

from summed
full join days on summed.sales_month = days.sales_month
where
    (summed.units_sold, summed.revenue, summed.refund_amount, summed.margin)
    is distinct from (days.units_sold, days.revenue, days.refund_amount, days.margin)
