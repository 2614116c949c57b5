{#- Without a time zone, so that dates cut from it do not depend on the
    session's setting. -#}
{% macro to_utc(column) -%}
    {{ return(adapter.dispatch('to_utc', 'shop')(column)) }}
{%- endmacro %}

{% macro default__to_utc(column) -%}
    ({{ column }} at time zone 'UTC')
{%- endmacro %}
