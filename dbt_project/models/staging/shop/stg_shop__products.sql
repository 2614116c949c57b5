-- depends_on: {{ ref('raw_products') }}
with

source as (

    select * from {{ source('shop', 'raw_products') }}

),

renamed as (

    select
        id as product_id,
        sku,
        trim(name) as product_name,
        lower(trim(category)) as category,
        {{ to_money('unit_price') }} as unit_price,
        unit_cost::numeric(12, 2) as unit_cost,
        {{ to_utc('coalesce(updated_at, _loaded_at)') }} as updated_at

    from source

)

select * from renamed
