{#- A merge adds and changes rows. It does not delete those that are no longer
    in the raw tables. A table from an earlier version of the shop lacks a
    column, and so do the other tables of that version. -#}
{% macro delete_orders_that_are_gone() -%}
    {%- if is_incremental() -%}
        {%- set columns = adapter.get_columns_in_relation(this) -%}
        {%- if 'load_fingerprint' not in columns | map(attribute='name') -%}
            {%- do exceptions.raise_compiler_error(
                this.render() ~ ' is from an earlier version of the shop, '
                ~ 'whose tables this version cannot update.\nType: '
                ~ 'invoke backup, then: invoke sql '
                ~ '"drop schema raw, snapshots, marts cascade", '
                ~ 'then: invoke run'
            ) -%}
        {%- endif -%}
        delete from {{ this }} as known
        where not exists (
            select 1 from {{ ref('stg_shop__orders').render() }} as orders
            where orders.order_id = known.order_id
        )
    {%- endif -%}
{%- endmacro %}
