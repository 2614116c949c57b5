{#- Adds a column in place of a loader's audit column. dbt empties and refills
    an existing seed table without a value for this column, so that its default
    records the time of every load. -#}
{% macro stamp_loads() -%}
    {{ return(adapter.dispatch('stamp_loads', 'shop')()) }}
{%- endmacro %}

{% macro default__stamp_loads() -%}
    alter table {{ this }} add column if not exists
    _loaded_at timestamptz default now()
{%- endmacro %}

{% macro postgres__stamp_loads() -%}
    alter table {{ this }} add column if not exists
    _loaded_at timestamptz not null default now()
{%- endmacro %}
