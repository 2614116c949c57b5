select id from {{ ref('raw_numbers') }}
