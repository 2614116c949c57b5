-- A batch is a year. Each run rebuilds all years since `begin`, so that a
-- payment counts however late it is loaded or changed. `lookback` has one year
-- more than that, in case the parse is from last year.
{{
    config(
        materialized='incremental',
        incremental_strategy='microbatch',
        unique_key=['payment_date', 'payment_method'],
        event_time='payment_date',
        batch_size='year',
        begin='2024-01-01',
        lookback=years_since(2023),
        on_schema_change='fail',
        pre_hook='{{ delete_days_without_payments() }}',
    )
}}

with

-- dbt filters this reference to the batch, by the event_time of
-- stg_shop__payments. A payment without a time (a test warns about it), before
-- `begin`, or in a future year is in no batch.
payments as (

    select * from {{ ref('stg_shop__payments') }}
    where paid_at >= '2024-01-01'

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
    group by 1, 2

)

select * from final
