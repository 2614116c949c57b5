{{ config(severity='warn') }}

select
    order_id,
    order_status,
    revenue,
    amount_paid
from {{ ref('fct_orders') }}
where
    (order_status in ('completed', 'returned') and amount_paid <> revenue)
    or (order_status = 'shipped' and amount_paid not in (0, revenue))
    or (order_status in ('pending', 'cancelled') and amount_paid <> 0)
