with

order_items as (

    select * from {{ ref('stg_shop__order_items') }}

),

priced as (

    select
        order_item_id,
        order_id,
        product_id,
        quantity,
        quantity * unit_price as gross_amount,
        discount_amount,
        quantity * unit_price - discount_amount as revenue,
        quantity * unit_cost as cost,
        quantity * unit_price - discount_amount - quantity * unit_cost as margin,
        loaded_at

    from order_items

)

select * from priced
