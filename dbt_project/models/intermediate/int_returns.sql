select
    returns.return_id,
    returns.order_item_id,
    order_items.order_id,
    order_items.product_id,
    returns.quantity,
    returns.refund_amount,
    returns.returned_at
from {{ ref('stg_returns') }} as returns
inner join {{ ref('stg_order_items') }} as order_items on returns.order_item_id = order_items.order_item_id
