select * from {{ ref('clicks') }}
