{{
    config(
        severity='warn',
        group='sales_analytics',
        meta={'dagster': {'ref': {'name': 'int_order_items_priced'}}},
    )
}}

with

order_items as (
    select * from {{ ref('int_order_items_priced') }}
),

returned as (
    select
        order_item_id,
        min(quantity) as least_returned,
        sum(quantity) as returned_quantity
    from {{ ref('int_returns_joined_to_order_items') }}
    group by 1
)

select
    order_items.order_item_id,
    order_items.quantity,
    returned.returned_quantity
from order_items
left join returned on order_items.order_item_id = returned.order_item_id
where
    order_items.quantity <= 0
    or returned.least_returned <= 0
    or returned.returned_quantity > order_items.quantity
