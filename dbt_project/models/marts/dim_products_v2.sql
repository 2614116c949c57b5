with

products as (

    select * from {{ ref('stg_shop__products') }}

),

final as (

    select
        product_id,
        sku,
        product_name,
        category,
        unit_price,
        unit_cost,
        (unit_price - unit_cost)::numeric(12, 2) as unit_margin,
        round(
            (unit_price - unit_cost) / nullif(unit_price, 0), 4
        )::numeric(14, 4) as margin_rate,
        updated_at

    from products

)

select * from final
