-- Only a warning: a payment may be loaded between the mart and the test.
{{
    config(
        severity='warn',
        group='sales_analytics',
        meta={'dagster': {'ref': {'name': 'fct_orders'}}},
    )
}}

with

orders as (

    select * from {{ ref('fct_orders') }}

),

payments as (

    select * from {{ ref('int_payments_summed_to_orders') }}

)

select
    orders.order_id,
    orders.amount_paid,
    payments.amount_paid as amount_received

from orders
left join payments on orders.order_id = payments.order_id
where orders.amount_paid <> coalesce(payments.amount_paid, 0)
