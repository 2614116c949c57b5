-- depends_on: {{ ref('raw_payments') }}
with

source as (

    select * from {{ source('shop', 'raw_payments') }}

),

renamed as (

    select
        id as payment_id,
        order_id,
        replace(lower(trim(method)), ' ', '_') as payment_method,
        lower(trim(status)) as payment_status,
        {{ to_money('amount') }} as amount,
        {{ to_utc('paid_at') }} as paid_at,
        _loaded_at as loaded_at

    from source

)

select * from renamed
