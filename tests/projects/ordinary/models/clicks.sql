select
    1 as id,
    current_date::timestamp as clicked_at
union all
select
    2,
    current_date - interval '1 day'
