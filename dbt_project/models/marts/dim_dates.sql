with

days as (

    select
        generate_series(
            timestamp '2024-01-01', timestamp '2030-12-31', interval '1 day'
        )::date as date_day

),

final as (

    select
        date_day,
        date_trunc('week', date_day)::date as date_week,
        date_trunc('month', date_day)::date as date_month,
        date_trunc('quarter', date_day)::date as date_quarter,
        date_trunc('year', date_day)::date as date_year

    from days

)

select * from final
