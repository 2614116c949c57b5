-- No run builds years before the model's `begin`, so this can only warn.
{{
    config(
        severity='warn',
        meta={'dagster': {'ref': {'name': 'fct_daily_payments'}}},
    )
}}

with

days as (

    select * from {{ ref('fct_daily_payments') }}

),

payments as (

    select
        paid_at::date as payment_date,
        payment_method,
        count(*) as attempts,
        coalesce(
            sum(amount) filter (where payment_status = 'succeeded'), 0
        ) as amount_received

    from {{ ref('stg_shop__payments') }}
    where paid_at is not null
    group by 1, 2

)

select
    coalesce(days.payment_date, payments.payment_date) as payment_date,
    days.amount_received as reported_amount,
    payments.amount_received as calculated_amount

from days
full join payments
    on
        days.payment_date = payments.payment_date
        and days.payment_method = payments.payment_method
where
    days.attempts is distinct from payments.attempts
    or days.amount_received is distinct from payments.amount_received
