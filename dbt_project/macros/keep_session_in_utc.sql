{#- dbt ends a deleted product at the current time in the session's time
    zone. -#}
{% macro keep_session_in_utc() -%}
    {{ return(adapter.dispatch('keep_session_in_utc', 'shop')()) }}
{%- endmacro %}

{% macro default__keep_session_in_utc() -%}
    set timezone = 'UTC'
{%- endmacro %}

{% macro postgres__keep_session_in_utc() -%}
    set local time zone 'UTC'
{%- endmacro %}
