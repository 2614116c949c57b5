with

-- A payment without a time has no day. A test warns of it.
payments as (

    select * from {{ ref('stg_shop__payments') }}
    where paid_at is not null

),

final as (

    select
        paid_at::date as payment_date,
        payment_method,
        count(*)::integer as attempts,
        (
            count(*) filter (where payment_status = 'failed')
        )::integer as failed_attempts,
        coalesce(
            sum(amount) filter (where payment_status = 'succeeded'), 0
        )::numeric(12, 2) as amount_received,
        coalesce(
            sum(amount) filter (where payment_status = 'refunded'), 0
        )::numeric(12, 2) as amount_paid_back

    from payments
    group by payment_date, payment_method

)

select * from final
