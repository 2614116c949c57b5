select id, {{ duck_shared.shout('name') }} as name, grams, '{{ env_var("POND") }}' as pond from {{ ref('raw_ducks') }}
