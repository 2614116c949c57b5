-- depends_on: {{ ref('raw_orders') }}
with

source as (
    select * from {{ source('raw', 'raw_orders') }}
),

renamed as (
    select
        id as order_id,
        {{ to_utc('updated_at') }} as updated_at
    from source
)

select * from renamed
