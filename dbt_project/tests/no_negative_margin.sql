{{ config(severity='warn', group='sales_analytics') }}

select
    order_item_id,
    revenue,
    cost,
    margin
from {{ ref('int_order_items_priced') }}
where margin < -1 * {{ var('negative_margin_tolerance') }} * revenue
