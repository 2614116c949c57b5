{#- A model's schema is exactly the one it is configured with: no prefix of the
    target's schema. That suits a database that one person has for themselves,
    as here. Where several share one, leave this macro out: dbt's own puts the
    schema of each person's target before it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
