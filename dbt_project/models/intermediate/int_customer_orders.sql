with

orders as (
    select * from {{ ref('stg_orders') }}
    where is_sale
),

order_items as (
    select * from {{ ref('int_order_items') }}
),

final as (
    select
        orders.customer_id,
        count(distinct orders.order_id)::integer as order_count,
        min(orders.ordered_at) as first_ordered_at,
        max(orders.ordered_at) as last_ordered_at,
        sum(order_items.net_revenue)::numeric(12, 2) as lifetime_value
    from orders
    inner join order_items on orders.order_id = order_items.order_id
    group by orders.customer_id
)

select * from final
