{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    unique_key='id',
    event_time='clicked_at',
    batch_size='day',
    begin=(modules.datetime.datetime.utcnow() - modules.datetime.timedelta(days=1)).strftime('%Y-%m-%d'),
    lookback=1
) }}
select id, clicked_at, 1 / {{ var('divisor', 1) }} as one from {{ ref('clicks') }}
