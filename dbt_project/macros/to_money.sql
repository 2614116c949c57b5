{#- Removes what is no digit, point or minus. The inner call finds it, and costs
    less than a pattern. Where that leaves no amount, such as of "n.a.", there is
    none. -#}
{% macro to_money(column) -%}
    {%- set figures -%}
        translate(
            {{ column }}, translate({{ column }}, '0123456789.-', ''), ''
        )
    {%- endset -%}
    {{ return(adapter.dispatch('text_to_money', 'shop')(figures)) }}
{%- endmacro %}

{% macro default__text_to_money(figures) -%}
    try_cast({{ figures }} as numeric(12, 2))
{%- endmacro %}

{#- PostgreSQL has no `try_cast`. -#}
{% macro postgres__text_to_money(figures) -%}
    case
        when pg_input_is_valid({{ figures }}, 'numeric(12,2)')
            then {{ figures }}::numeric(12, 2)
    end
{%- endmacro %}
