{#- Removes "$", "USD", spaces, and the commas before three figures. Where that
    leaves no amount, such as of "n.a.", "12,50" or "5 EUR", there is none. The
    letter n is removed as well: PostgreSQL takes "NaN" for a number. -#}
{% macro to_money(column) -%}
    {%- set noise = '$ USDNusdn' -%}
    {%- set figures = "translate(" ~ column ~ ", '" ~ noise ~ ",', '')" -%}
    {%- set typed = "translate(" ~ column ~ ", '" ~ noise ~ "', '')" -%}
    case
        when
            {{ column }} not like '%,%'
            or {{ typed }} like '%,___'
            or {{ typed }} like '%,___.%'
            then {{ adapter.dispatch('text_to_money', 'shop')(figures) }}
    end
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
