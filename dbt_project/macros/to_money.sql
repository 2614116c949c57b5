{% macro to_money(column) -%}
    regexp_replace({{ column }}, '[^0-9.-]', '', 'g')::numeric(12, 2)
{%- endmacro %}
