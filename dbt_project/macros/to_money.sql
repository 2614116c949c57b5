{#- Reads a number unchanged, or else without "$", "USD", spaces, and commas
    before three digits. If the rest is not an amount, as in "n.a.", "12,50",
    "1.234,50" or "5 EUR", the result is null. -#}
{% macro to_money(column) -%}
    {%- set noise = '$ USDusd' -%}
    {%- set figures = "translate(" ~ column ~ ", '" ~ noise ~ ",', '')" -%}
    {%- set typed = "translate(" ~ column ~ ", '" ~ noise ~ "', '')" -%}
    coalesce(
        {{ adapter.dispatch('text_to_money', 'shop')(column) }},
        case
            when
                {{ column }} not like '%,%'
                or {{ typed }} like '%,___'
                and {{ typed }} not like '%.%,%'
                or {{ typed }} like '%,___.%'
                then {{ adapter.dispatch('text_to_money', 'shop')(figures) }}
        end
    )
{%- endmacro %}

{% macro default__text_to_money(figures) -%}
    try_cast({{ figures }} as numeric(12, 2))
{%- endmacro %}

{#- PostgreSQL has no `try_cast`, and accepts "NaN" as a number. -#}
{% macro postgres__text_to_money(figures) -%}
    case
        when pg_input_is_valid({{ figures }}, 'numeric(12,2)')
            then nullif({{ figures }}::numeric(12, 2), 'NaN')
    end
{%- endmacro %}
