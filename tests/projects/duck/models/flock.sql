select count(*) as ducks, sum(grams) * {{ var('times', 1) }} as grams, '{{ env_var("POND_OWNER", "nobody") }}' as owner from {{ ref('ducks') }}
