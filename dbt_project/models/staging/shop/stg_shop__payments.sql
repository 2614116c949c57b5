-- depends_on: {{ ref('raw_payments') }}
with

source as (

    select * from {{ source('shop', 'raw_payments') }}

),

renamed as (

    select
        id as payment_id,
        order_id,
        coalesce(
            replace(lower(trim(method)), ' ', '_'), 'unknown'
        ) as payment_method,
        coalesce(lower(trim(status)), 'unknown') as payment_status,
        {{ to_money('amount') }} as amount,
        {{ to_utc('paid_at') }} as paid_at,
        _loaded_at as loaded_at

    from source

)

select * from renamed
