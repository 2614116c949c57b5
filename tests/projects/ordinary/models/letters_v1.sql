select id, 'a' as letter from {{ ref('raw_clicks') }}
