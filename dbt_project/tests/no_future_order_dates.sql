{{ config(tags=['smoke']) }}

select
    order_id,
    ordered_at
from {{ ref('fct_orders') }}
where ordered_at > {{ to_utc('current_timestamp') }}
