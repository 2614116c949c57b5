select letter from {{ ref('letters', v=1) }} union all select letter from {{ ref('letters') }}
