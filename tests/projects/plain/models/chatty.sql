{% for number in range(50000) %}{{ log("line " ~ number, info=True) if execute }}{% endfor %}
select id from {{ ref('a_b') }}
