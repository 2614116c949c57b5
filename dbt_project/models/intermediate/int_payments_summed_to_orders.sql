with

payments as (

    select * from {{ ref('stg_shop__payments') }}

),

summed as (

    select
        order_id,
        coalesce(
            sum(amount) filter (where payment_status = 'succeeded'), 0
        )::numeric(14, 2) as amount_paid,
        sum({{ to_seconds('loaded_at') }}) as load_fingerprint,
        max(paid_at) filter (
            where payment_status = 'succeeded'
        ) as last_paid_at,
        max(paid_at) as last_payment_activity_at

    from payments
    where order_id is not null
    group by 1

)

select * from summed
