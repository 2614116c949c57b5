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
        unit_price::numeric(12, 2) as unit_price,
        unit_cost::numeric(12, 2) as unit_cost,
        discount_amount::numeric(12, 2) as discount_amount,
        _loaded_at as loaded_at

    from source

)

select * from renamed
