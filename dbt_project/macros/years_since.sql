{% macro years_since(year) -%}
    {{ return(run_started_at.year - year) }}
{%- endmacro %}
