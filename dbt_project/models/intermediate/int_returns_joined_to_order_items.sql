with

returns as (

    select * from {{ ref('stg_shop__returns') }}

),

order_items as (

    select * from {{ ref('stg_shop__order_items') }}

),

joined as (

    select
        returns.return_id,
        returns.order_item_id,
        order_items.order_id,
        order_items.product_id,
        returns.quantity,
        returns.refund_amount,
        returns.returned_at,
        returns.loaded_at

    from returns
    inner join order_items on returns.order_item_id = order_items.order_item_id

)

select * from joined
