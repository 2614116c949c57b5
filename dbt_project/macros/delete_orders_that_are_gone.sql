{#- A merge adds and changes rows. It does not delete those that are no longer
    in the raw tables. -#}
{% macro delete_orders_that_are_gone() -%}
    {%- if is_incremental() -%}
        delete from {{ this }} as known
        where not exists (
            select 1 from {{ ref('stg_shop__orders').render() }} as orders
            where orders.order_id = known.order_id
        )
    {%- endif -%}
{%- endmacro %}
