{{ config(severity='warn', tags=['smoke']) }}

select
    order_id,
    ordered_at,
    last_activity_at
from {{ ref('fct_orders') }}
where
    greatest(ordered_at, last_activity_at)
    > {{ to_utc('current_timestamp') }}
