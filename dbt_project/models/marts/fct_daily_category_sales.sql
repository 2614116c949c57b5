-- depends_on: {{ ref('fct_daily_sales') }}
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='order_date',
        on_schema_change='fail',
    )
}}

with

{% if is_incremental() %}
    -- A day is computed again, as a whole, when its sums are not those of fct_daily_sales. What is sold is settled within
    -- days; what is sent back changes for months, and so is in fct_daily_category_refunds.
    changed_days as (
        select
            order_date,
            units_sold,
            revenue,
            margin
        from {{ ref('fct_daily_sales') }}
        except
        select
            order_date,
            sum(units_sold) as units_sold,
            sum(revenue) as revenue,
            sum(margin) as margin
        from {{ this }}
        group by order_date
    ),
{% endif %}

orders as (
    select
        order_id,
        order_date
    from {{ ref('fct_orders') }}
    where
        is_sale
        {% if is_incremental() %}
            and order_date = any(array(select changed_days.order_date from changed_days))
        {% endif %}
),

order_items as (
    select * from {{ ref('int_order_items') }}
),

products as (
    select * from {{ ref('dim_products') }}
),

final as (
    select
        orders.order_date,
        products.category,
        count(distinct orders.order_id)::integer as orders_sold,
        sum(order_items.quantity)::integer as units_sold,
        sum(order_items.discount_amount)::numeric(12, 2) as discount_amount,
        -- Sums are subtracted, not what goes into them: that is a third less of arithmetic for each line.
        (sum(order_items.gross_amount) - sum(order_items.discount_amount))::numeric(12, 2) as revenue,
        (
            sum(order_items.gross_amount) - sum(order_items.discount_amount) - sum(order_items.cost)
        )::numeric(12, 2) as margin
    from orders
    inner join order_items on orders.order_id = order_items.order_id
    inner join products on order_items.product_id = products.product_id
    group by orders.order_date, products.category
)

select * from final
