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
    group by 1
    having sum(orders_sold) > 0
)

select *
from summed
full join days using (sales_month, units_sold, revenue, refund_amount, margin)
where summed.sales_month is null or days.sales_month is null
