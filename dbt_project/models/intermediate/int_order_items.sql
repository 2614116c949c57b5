-- Cents in, cents out: nothing is rounded here, and a cast for each line would cost more than its arithmetic.
select
    order_item_id,
    order_id,
    product_id,
    quantity,
    quantity * unit_price as gross_amount,
    discount_amount,
    quantity * unit_price - discount_amount as revenue,
    quantity * unit_cost as cost,
    quantity * unit_price - discount_amount - quantity * unit_cost as margin
from {{ ref('stg_order_items') }}
