{#- Removes what is no digit, point or minus. The inner call finds it, and costs less than a pattern. -#}
{% macro to_money(column) -%}
    translate({{ column }}, translate({{ column }}, '0123456789.-', ''), '')::numeric(12, 2)
{%- endmacro %}
