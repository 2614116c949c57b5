with

orders as (

    select * from {{ ref('fct_orders') }}

),

final as (

    select
        order_date,
        count(*)::integer as orders_placed,
        (count(*) filter (where is_sale))::integer as orders_sold,
        (
            count(*) filter (where order_status = 'cancelled')
        )::integer as orders_cancelled,
        coalesce(
            sum(unit_count) filter (where is_sale), 0
        )::integer as units_sold,
        coalesce(
            sum(revenue) filter (where is_sale), 0
        )::numeric(12, 2) as revenue,
        coalesce(
            sum(cost) filter (where is_sale), 0
        )::numeric(12, 2) as cost,
        coalesce(
            sum(margin) filter (where is_sale), 0
        )::numeric(12, 2) as margin,
        coalesce(
            sum(refund_amount) filter (where is_sale), 0
        )::numeric(12, 2) as refund_amount,
        coalesce(
            sum(net_revenue) filter (where is_sale), 0
        )::numeric(12, 2) as net_revenue,
        max(last_activity_at) as last_activity_at

    from orders
    group by 1

)

select * from final
