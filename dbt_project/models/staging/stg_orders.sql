-- depends_on: {{ ref('raw_orders') }}
with

source as (
    select * from {{ source('raw', 'raw_orders') }}
),

-- The loader can leave an older version of an order behind.
latest_versions as (
    select distinct on (id) *
    from source
    order by id asc, updated_at desc
),

renamed as (
    select
        id as order_id,
        customer_id,
        replace(lower(trim(status)), 'canceled', 'cancelled') as order_status,
        {{ to_utc('ordered_at') }} as ordered_at,
        {{ to_utc('updated_at') }} as updated_at
    from latest_versions
)

select
    *,
    order_status in ('shipped', 'completed', 'returned') as is_sale
from renamed
