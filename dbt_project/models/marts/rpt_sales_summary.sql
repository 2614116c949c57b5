with

orders as (
    select * from {{ ref('fct_orders') }}
    where is_sale
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
