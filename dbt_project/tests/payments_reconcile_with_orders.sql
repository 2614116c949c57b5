with

orders as (
    select * from {{ ref('fct_orders') }}
),

payments as (
    select * from {{ ref('int_payments_summed_to_orders') }}
),

compared as (
    select
        orders.order_id,
        orders.order_status,
        orders.revenue,
        orders.amount_paid,
        coalesce(payments.amount_paid, 0) as amount_received
    from orders
    left join payments on orders.order_id = payments.order_id
)

select *
from compared
where
    amount_paid <> amount_received
    or (order_status in ('completed', 'returned') and amount_received <> revenue)
    or (order_status = 'shipped' and amount_received not in (0, revenue))
    or (order_status in ('pending', 'cancelled') and amount_received <> 0)
