-- depends_on: {{ ref('raw_orders') }}
with

source as (

    select * from {{ source('shop', 'raw_orders') }}

),

renamed as (

    select
        id as order_id,
        customer_id,
        coalesce(
            replace(lower(trim(status)), 'canceled', 'cancelled'), 'unknown'
        ) as order_status,
        {{ to_utc('ordered_at') }} as ordered_at,
        {{ to_utc('updated_at') }} as updated_at,
        _loaded_at as loaded_at

    from source

),

-- The loader can leave older versions of an order behind; the newest one
-- counts. Of versions with the same time, the one that was loaded last counts.
-- The other columns only make the choice the same each time.
ranked as (

    select
        *,
        row_number() over (
            partition by order_id
            order by
                updated_at desc nulls last,
                loaded_at desc,
                order_status asc,
                customer_id asc,
                ordered_at asc
        ) as version_rank,
        sum({{ to_seconds('loaded_at') }}) over (
            partition by order_id
        ) as load_fingerprint

    from renamed

),

final as (

    select
        order_id,
        customer_id,
        order_status,
        load_fingerprint,
        order_status in ('shipped', 'completed', 'returned') as is_sale,
        -- Without a time, an order would not be counted on any day.
        coalesce(
            ordered_at, updated_at, {{ to_utc('loaded_at') }}
        ) as ordered_at,
        updated_at

    from ranked
    where version_rank = 1

)

select * from final
