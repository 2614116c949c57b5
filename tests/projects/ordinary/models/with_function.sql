select {{ function('plus_one') }}(id) as more from {{ ref('after_fragile') }}
