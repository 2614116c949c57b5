{#- A row for each day or month, from the first to the last one. -#}
{% macro periods(unit, first, last) -%}
    {{ return(adapter.dispatch('periods', 'shop')(unit, first, last)) }}
{%- endmacro %}

{% macro default__periods(unit, first, last) -%}
    generate_series(
        {{ first }}::timestamp, {{ last }}::timestamp, interval '1 {{ unit }}'
    )
{%- endmacro %}

{#- In DuckDB, the function returns a list. -#}
{% macro duckdb__periods(unit, first, last) -%}
    unnest({{ shop.default__periods(unit, first, last) }})
{%- endmacro %}
