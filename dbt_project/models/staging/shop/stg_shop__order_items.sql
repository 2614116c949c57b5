-- depends_on: {{ ref('raw_order_items') }}
with

source as (

    select * from {{ source('shop', 'raw_order_items') }}

),

renamed as (

    select
        id as order_item_id,
        order_id,
        product_id,
        quantity,
        unit_price,
        unit_cost,
        discount_amount,
        _loaded_at as loaded_at

    from source

)

select * from renamed
