select id from {{ ref('clicks') }} -- {{ source('outside', 'Odd name$') }}
