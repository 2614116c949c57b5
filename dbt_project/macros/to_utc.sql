{#- The result has no time zone, so that its date does not depend on the
    session's setting. -#}
{% macro to_utc(column) -%}
    {{ return(adapter.dispatch('to_utc', 'shop')(column)) }}
{%- endmacro %}

{% macro default__to_utc(column) -%}
    ({{ column }} at time zone 'UTC')
{%- endmacro %}
