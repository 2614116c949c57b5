select id, 'b' as letter, 1 as added from {{ ref('raw_clicks') }}
