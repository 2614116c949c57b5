select * from {{ ref('last') }} where doubled < 0
