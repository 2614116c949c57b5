-- depends_on: {{ ref('fct_daily_sales') }}
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='sales_month',
        on_schema_change='fail',
    )
}}

with

{% if is_incremental() %}
    -- A month is computed again, as a whole, when its sums are not those of its days.
    changed_months as (
        select
            date_trunc('month', order_date)::date as sales_month,
            sum(units_sold) as units_sold,
            sum(revenue) as revenue,
            sum(margin) as margin,
            sum(refund_amount) as refund_amount
        from {{ ref('fct_daily_sales') }}
        group by 1
        except
        select
            sales_month,
            sum(units_sold) as units_sold,
            sum(revenue) as revenue,
            sum(margin) as margin,
            sum(refund_amount) as refund_amount
        from {{ this }}
        group by 1
    ),
{% endif %}

orders as (
    select * from {{ ref('fct_orders') }}
    where
        is_sale
        {% if is_incremental() %}
            and order_date = any(array(
                select days.order_date
                from {{ ref('fct_daily_sales') }} as days
                inner join changed_months on date_trunc('month', days.order_date)::date = changed_months.sales_month
            ))
        {% endif %}
),

order_items as (
    select * from {{ ref('int_order_items') }}
),

products as (
    select * from {{ ref('dim_products') }}
),

sales as (
    select
        date_trunc('month', orders.order_date)::date as sales_month,
        products.category,
        count(distinct orders.order_id) as orders_sold,
        sum(order_items.quantity) as units_sold,
        sum(order_items.discount_amount) as discount_amount,
        sum(order_items.revenue) as revenue,
        sum(order_items.refund_amount) as refund_amount,
        sum(order_items.net_revenue) as net_revenue,
        sum(order_items.margin) as margin
    from orders
    inner join order_items on orders.order_id = order_items.order_id
    inner join products on order_items.product_id = products.product_id
    group by sales_month, products.category
),

final as (
    select
        sales_month,
        category,
        orders_sold::integer as orders_sold,
        units_sold::integer as units_sold,
        discount_amount::numeric(12, 2) as discount_amount,
        revenue::numeric(12, 2) as revenue,
        refund_amount::numeric(12, 2) as refund_amount,
        net_revenue::numeric(12, 2) as net_revenue,
        margin::numeric(12, 2) as margin,
        round(margin / nullif(revenue, 0), 4)::numeric(6, 4) as margin_rate
    from sales
)

select * from final
