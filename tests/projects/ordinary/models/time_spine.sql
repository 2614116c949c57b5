{{ config(materialized='table') }}
select generate_series(date '2020-01-01', date '2020-01-10', interval '1 day')::date as date_day
