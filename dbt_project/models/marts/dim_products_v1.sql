with

products as (

    select * from {{ ref('dim_products', v=2) }}

),

final as (

    select
        product_id,
        sku,
        product_name,
        category,
        unit_price,
        unit_cost,
        unit_margin,
        (100 * margin_rate)::numeric(14, 2) as margin_percent,
        updated_at

    from products

)

select * from final
