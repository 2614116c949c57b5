with

order_items as (
    select * from {{ ref('stg_order_items') }}
),

returns as (
    select
        order_item_id,
        sum(quantity) as returned_quantity,
        sum(refund_amount) as refund_amount,
        max(returned_at) as last_returned_at
    from {{ ref('stg_returns') }}
    group by order_item_id
),

amounts as (
    select
        *,
        (quantity * unit_price)::numeric(12, 2) as gross_amount,
        (quantity * unit_price - discount_amount)::numeric(12, 2) as revenue,
        (quantity * unit_cost)::numeric(12, 2) as cost
    from order_items
),

final as (
    select
        amounts.order_item_id,
        amounts.order_id,
        amounts.product_id,
        amounts.quantity,
        amounts.gross_amount,
        amounts.discount_amount,
        amounts.revenue,
        amounts.cost,
        (amounts.revenue - amounts.cost)::numeric(12, 2) as margin,
        coalesce(returns.returned_quantity, 0)::integer as returned_quantity,
        coalesce(returns.refund_amount, 0)::numeric(12, 2) as refund_amount,
        (amounts.revenue - coalesce(returns.refund_amount, 0))::numeric(12, 2) as net_revenue,
        returns.last_returned_at
    from amounts
    left join returns on amounts.order_item_id = returns.order_item_id
)

select * from final
