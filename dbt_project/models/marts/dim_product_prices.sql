with

product_prices as (

    select * from {{ ref('product_prices') }}

),

final as (

    select
        dbt_scd_id as product_price_id,
        product_id,
        sku,
        product_name,
        unit_price,
        unit_cost,
        dbt_valid_to is null as is_current,
        dbt_valid_from as valid_from,
        dbt_valid_to as valid_to

    from product_prices

)

select * from final
