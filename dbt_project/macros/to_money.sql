{#- What is no digit, point or minus is taken out: the inner call finds it, at a fifth of what a regular expression costs. -#}
{% macro to_money(column) -%}
    translate({{ column }}, translate({{ column }}, '0123456789.-', ''), '')::numeric(12, 2)
{%- endmacro %}
