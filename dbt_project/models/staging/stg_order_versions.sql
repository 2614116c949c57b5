-- depends_on: {{ ref('raw_orders') }}
select
    id as order_id,
    {{ to_utc('updated_at') }} as updated_at
from {{ source('raw', 'raw_orders') }}
