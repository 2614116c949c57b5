select id from {{ ref('clicks') }}
