-- An order changes not only by its own row, but also by what is paid and what is sent back.
select
    order_id,
    updated_at as activity_at
from {{ ref('stg_order_versions') }}
union all
select
    order_id,
    paid_at as activity_at
from {{ ref('stg_payments') }}
union all
select
    order_id,
    returned_at as activity_at
from {{ ref('int_returns') }}
