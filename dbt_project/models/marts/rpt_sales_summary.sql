with

daily_sales as (

    select * from {{ ref('fct_daily_category_sales') }}

),

-- An order belongs to exactly one day, so the days' orders can be added up.
final as (

    select
        date_trunc('month', order_date)::date as sales_month,
        category,
        sum(orders_sold)::integer as orders_sold,
        sum(units_sold)::integer as units_sold,
        sum(discount_amount)::numeric(12, 2) as discount_amount,
        sum(revenue)::numeric(12, 2) as revenue,
        sum(refund_amount)::numeric(12, 2) as refund_amount,
        sum(net_revenue)::numeric(12, 2) as net_revenue,
        sum(margin)::numeric(12, 2) as margin,
        round(
            sum(margin) / nullif(sum(revenue), 0), 4
        )::numeric(14, 4) as margin_rate

    from daily_sales
    group by 1, 2

)

select * from final
