with

days as (

    select
        {{ periods('day', "'2024-01-01'", "'2030-12-31'") }} as day_start

),

dated as (

    select day_start::date as date_day from days

),

final as (

    select
        date_day,
        date_trunc('week', date_day)::date as date_week,
        date_trunc('month', date_day)::date as date_month,
        date_trunc('quarter', date_day)::date as date_quarter,
        date_trunc('year', date_day)::date as date_year

    from dated

)

select * from final
