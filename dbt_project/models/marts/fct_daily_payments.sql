{{
    config(
        materialized='incremental',
        incremental_strategy='microbatch',
        unique_key=['payment_date', 'payment_method'],
        event_time='payment_date',
        batch_size='year',
        begin='2024-01-01',
        lookback=1,
        on_schema_change='fail',
    )
}}

with

-- dbt adds the batch's first and last day to this reference, by the event_time of stg_shop__payments.
payments as (

    select * from {{ ref('stg_shop__payments') }}

),

summed as (

    select
        paid_at::date as payment_date,
        payment_method,
        count(*) as attempts,
        count(*) filter (where payment_status = 'failed') as failed_attempts,
        sum(amount) filter (where payment_status = 'succeeded') as amount_received,
        sum(amount) filter (where payment_status = 'refunded') as amount_paid_back

    from payments
    group by payment_date, payment_method

),

final as (

    select
        payment_date,
        payment_method,
        attempts::integer as attempts,
        failed_attempts::integer as failed_attempts,
        coalesce(amount_received, 0)::numeric(12, 2) as amount_received,
        coalesce(amount_paid_back, 0)::numeric(12, 2) as amount_paid_back

    from summed

)

select * from final
