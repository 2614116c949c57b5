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
    -- A day is computed again, as a whole, when its sum is not that of fct_daily_sales.
    changed_days as (
        select
            order_date,
            refund_amount
        from {{ ref('fct_daily_sales') }}
        except
        select
            order_date,
            sum(refund_amount) as refund_amount
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
        and refund_amount > 0
        {% if is_incremental() %}
            and order_date = any(array(select changed_days.order_date from changed_days))
        {% endif %}
),

returns as (
    select * from {{ ref('int_returns') }}
),

products as (
    select * from {{ ref('dim_products') }}
),

final as (
    select
        orders.order_date,
        products.category,
        sum(returns.refund_amount)::numeric(12, 2) as refund_amount
    from orders
    inner join returns on orders.order_id = returns.order_id
    inner join products on returns.product_id = products.product_id
    group by orders.order_date, products.category
)

select * from final
