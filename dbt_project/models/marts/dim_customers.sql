with

customers as (

    select * from {{ ref('stg_shop__customers') }}

),

orders as (

    select * from {{ ref('fct_orders') }}
    where is_sale

),

customer_orders as (

    select
        customer_id,
        count(*)::integer as order_count,
        sum(net_revenue) as lifetime_value,
        min(ordered_at) as first_ordered_at,
        max(ordered_at) as last_ordered_at
    from orders
    group by 1

),

joined as (

    select
        customers.*,
        coalesce(customer_orders.order_count, 0) as order_count,
        coalesce(
            customer_orders.lifetime_value, 0
        )::numeric(12, 2) as lifetime_value,
        customer_orders.first_ordered_at,
        customer_orders.last_ordered_at
    from customers
    left join customer_orders
        on customers.customer_id = customer_orders.customer_id

),

final as (

    select
        customer_id,
        first_name,
        last_name,
        email,
        country_code,
        case
            when lifetime_value >= {{ var('high_value_threshold') }}
                then 'high_value'
            when lifetime_value >= {{ var('medium_value_threshold') }}
                then 'medium_value'
            else 'low_value'
        end as customer_segment,
        order_count,
        lifetime_value,
        signed_up_at,
        first_ordered_at,
        last_ordered_at
    from joined

)

select * from final
