select id from {{ ref('with-dash') }} where id < 0
