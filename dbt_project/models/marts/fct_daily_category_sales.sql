with

orders as (

    select * from {{ ref('fct_orders') }}
    where is_sale

),

order_items as (

    select * from {{ ref('int_order_items_priced') }}

),

products as (

    select * from {{ ref('dim_products') }}

),

returns as (

    select * from {{ ref('stg_shop__returns') }}

),

refunds as (

    select
        order_item_id,
        sum(refund_amount) as refund_amount

    from returns
    group by 1

),

joined as (

    select
        orders.order_id,
        orders.order_date,
        order_items.quantity,
        order_items.gross_amount,
        order_items.discount_amount,
        order_items.cost,
        refunds.refund_amount,
        -- Keep a line even if its product is missing.
        coalesce(products.category, 'unknown') as category

    from orders
    inner join order_items on orders.order_id = order_items.order_id
    left join products on order_items.product_id = products.product_id
    left join refunds on order_items.order_item_id = refunds.order_item_id

),

summed as (

    select
        order_date,
        category,
        count(distinct order_id) as orders_sold,
        sum(quantity) as units_sold,
        sum(discount_amount) as discount_amount,
        sum(gross_amount) - sum(discount_amount) as revenue,
        sum(cost) as cost,
        coalesce(sum(refund_amount), 0) as refund_amount

    from joined
    group by 1, 2

),

final as (

    select
        order_date,
        category,
        orders_sold::integer as orders_sold,
        units_sold::integer as units_sold,
        discount_amount::numeric(12, 2) as discount_amount,
        revenue::numeric(12, 2) as revenue,
        refund_amount::numeric(12, 2) as refund_amount,
        (revenue - refund_amount)::numeric(12, 2) as net_revenue,
        (revenue - cost)::numeric(12, 2) as margin

    from summed

)

select * from final
