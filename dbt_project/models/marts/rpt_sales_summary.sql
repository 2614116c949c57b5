with

sales as (
    select * from {{ ref('fct_daily_category_sales') }}
),

refunds as (
    select * from {{ ref('fct_daily_category_refunds') }}
),

months as (
    select
        date_trunc('month', sales.order_date)::date as sales_month,
        sales.category,
        -- An order has one day: those of the days add up.
        sum(sales.orders_sold) as orders_sold,
        sum(sales.units_sold) as units_sold,
        sum(sales.discount_amount) as discount_amount,
        sum(sales.revenue) as revenue,
        coalesce(sum(refunds.refund_amount), 0) as refund_amount,
        sum(sales.margin) as margin
    from sales
    left join refunds on sales.order_date = refunds.order_date and sales.category = refunds.category
    group by sales_month, sales.category
),

final as (
    select
        sales_month,
        category,
        orders_sold::integer as orders_sold,
        units_sold::integer as units_sold,
        discount_amount::numeric(12, 2) as discount_amount,
        revenue::numeric(12, 2) as revenue,
        refund_amount::numeric(12, 2) as refund_amount,
        (revenue - refund_amount)::numeric(12, 2) as net_revenue,
        margin::numeric(12, 2) as margin,
        round(margin / nullif(revenue, 0), 4)::numeric(6, 4) as margin_rate
    from months
)

select * from final
