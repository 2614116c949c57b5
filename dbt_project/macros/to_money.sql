{#- Removes what is no digit, point or minus. The inner call finds it, and costs
    less than a pattern. Where nothing is left, there is no amount. -#}
{% macro to_money(column) -%}
    nullif(
        translate(
            {{ column }}, translate({{ column }}, '0123456789.-', ''), ''
        ),
        ''
    )::numeric(12, 2)
{%- endmacro %}
