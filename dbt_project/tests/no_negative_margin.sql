select
    order_item_id,
    revenue,
    cost,
    margin
from {{ ref('int_order_items') }}
where margin < -1 * {{ var('negative_margin_tolerance') }} * revenue
