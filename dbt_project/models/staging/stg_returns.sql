-- depends_on: {{ ref('raw_returns') }}
select
    id as return_id,
    order_item_id,
    quantity,
    replace(lower(trim(reason)), ' ', '_') as return_reason,
    refund_amount,
    {{ to_utc('returned_at') }} as returned_at
from {{ source('raw', 'raw_returns') }}
