{#- A model's schema is exactly the configured one, without the target's schema
    as a prefix. That suits a database with one user, as here. If several people
    share a database, leave this macro out: dbt's own one prefixes the schema of
    each person's target. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
