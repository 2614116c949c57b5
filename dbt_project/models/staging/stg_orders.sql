-- depends_on: {{ ref('raw_orders') }}
select
    *,
    order_status in ('shipped', 'completed', 'returned') as is_sale
from (
    -- The loader can leave an older version of an order behind.
    select distinct on (versions.id)
        versions.id as order_id,
        versions.customer_id,
        replace(lower(trim(versions.status)), 'canceled', 'cancelled') as order_status,
        {{ to_utc('versions.ordered_at') }} as ordered_at,
        {{ to_utc('versions.updated_at') }} as updated_at
    from {{ source('raw', 'raw_orders') }} as versions
    order by versions.id asc, versions.updated_at desc
) as latest_versions
