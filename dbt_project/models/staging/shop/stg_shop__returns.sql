-- depends_on: {{ ref('raw_returns') }}
with

source as (

    select * from {{ source('shop', 'raw_returns') }}

),

renamed as (

    select
        id as return_id,
        order_item_id,
        replace(lower(trim(reason)), ' ', '_') as return_reason,
        quantity,
        refund_amount::numeric(12, 2) as refund_amount,
        {{ to_utc('returned_at') }} as returned_at,
        _loaded_at as loaded_at

    from source

)

select * from renamed
