select id from {{ ref('clicks') }} where {{ function('plus_one') }}(id) < 0
