{{ config(materialized='table') }}
select id, id % 7 as bucket from range(0, 700000, 1, 4)
