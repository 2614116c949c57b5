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

-- Cents in, cents out: nothing is rounded here, and a cast for each line would cost more than its arithmetic.
amounts as (
    select
        *,
        quantity * unit_price as gross_amount,
        quantity * unit_price - discount_amount as revenue,
        quantity * unit_cost as cost
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
        amounts.revenue - amounts.cost as margin,
        coalesce(returns.returned_quantity, 0)::integer as returned_quantity,
        coalesce(returns.refund_amount, 0.00) as refund_amount,
        amounts.revenue - coalesce(returns.refund_amount, 0.00) as net_revenue,
        returns.last_returned_at
    from amounts
    left join returns on amounts.order_item_id = returns.order_item_id
)

select * from final
