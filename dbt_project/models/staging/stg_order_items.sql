-- depends_on: {{ ref('raw_order_items') }}
select
    id as order_item_id,
    order_id,
    product_id,
    quantity,
    unit_price,
    unit_cost,
    discount_amount
from {{ source('raw', 'raw_order_items') }}
