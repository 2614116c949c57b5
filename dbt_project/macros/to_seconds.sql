{#- Seconds since 1970, with microseconds. -#}
{% macro to_seconds(column) -%}
    {{ return(adapter.dispatch('to_seconds', 'shop')(column)) }}
{%- endmacro %}

{% macro default__to_seconds(column) -%}
    extract(epoch from {{ column }})
{%- endmacro %}

{#- In DuckDB, `extract` returns a double, whose sums are not exact. -#}
{% macro duckdb__to_seconds(column) -%}
    (epoch_us({{ column }})::decimal(18, 0) * 0.000001)
{%- endmacro %}
