{{ config(materialized='table') }}
select days.name, count(*) as numbers, sum(numbers.id) as total
from {{ ref('numbers') }} as numbers join {{ ref('days') }} as days on days.bucket = numbers.bucket
group by days.name
