select
    order_item_id,
    quantity,
    returned_quantity
from {{ ref('int_order_items') }}
where
    quantity <= 0
    or returned_quantity < 0
    or returned_quantity > quantity
