-- depends_on: {{ ref('raw_customers') }}
with

source as (

    select * from {{ source('shop', 'raw_customers') }}

),

renamed as (

    select
        id as customer_id,
        trim(first_name) as first_name,
        trim(last_name) as last_name,
        lower(trim(email)) as email,
        coalesce(upper(nullif(trim(country), '')), 'unknown') as country_code,
        {{ to_utc('signed_up_at') }} as signed_up_at

    from source

)

select * from renamed
