with

order_items as (

    select * from {{ ref('stg_shop__order_items') }}

),

-- A null counts as zero, so that it does not make the line's other amounts
-- null.
measured as (

    select
        order_item_id,
        order_id,
        product_id,
        coalesce(quantity, 0) as quantity,
        coalesce(quantity * unit_price, 0)::numeric(14, 2) as gross_amount,
        -- Without a price, there is nothing to discount.
        case
            when quantity * unit_price is null then 0
            else coalesce(discount_amount, 0)
        end as discount_amount,
        coalesce(quantity * unit_cost, 0)::numeric(14, 2) as cost,
        loaded_at

    from order_items

),

priced as (

    select
        order_item_id,
        order_id,
        product_id,
        quantity,
        gross_amount,
        discount_amount,
        (gross_amount - discount_amount)::numeric(14, 2) as revenue,
        cost,
        (gross_amount - discount_amount - cost)::numeric(14, 2) as margin,
        loaded_at

    from measured

)

select * from priced
