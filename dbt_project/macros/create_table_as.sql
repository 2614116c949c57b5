{#- A table with a contract is made by `create table as`: PostgreSQL lets several processes work at its query, as it does not
    at that of an `insert` into an empty table, which is dbt's own way. The types are in the query, and what must not be null
    is said once the table is filled. A model that asks for anything else is left to dbt. -#}
{% macro postgres__create_table_as(temporary, relation, sql) -%}
    {%- set columns = model['columns'].values() | list -%}
    {%- set constraints = columns | sum(attribute='constraints', start=model.get('constraints', [])) -%}
    {%- set more = constraints | rejectattr('type', 'equalto', 'not_null') | list or config.get('unlogged') or config.get('sql_header') -%}
    {%- if temporary or not config.get('contract').enforced or more -%}
        {{ return(dbt.postgres__create_table_as(temporary, relation, sql)) }}
    {%- endif -%}
    {{ get_assert_columns_equivalent(sql) }}
    create table {{ relation }} as
    select
        {% for column in columns -%}
            {{ column.name }}::{{ column.data_type }} as {{ column.name }}{{ "," if not loop.last }}
        {% endfor %}
    from (
        {{ sql }}
    ) as model_subq
{%- endmacro %}

{% macro postgres__create_indexes(relation) -%}
    {%- if config.get('contract').enforced -%}
        {%- set changes = [] -%}
        {%- for column in model['columns'].values() if 'not_null' in column.constraints | map(attribute='type') -%}
            {%- do changes.append('alter column ' ~ column.name ~ ' set not null') -%}
        {%- endfor -%}
        {#- All at once: PostgreSQL reads the table for them once. -#}
        {%- if changes -%}
            {%- do run_query('alter table ' ~ relation ~ ' ' ~ changes | join(', ')) -%}
        {%- endif -%}
    {%- endif -%}
    {{ dbt.default__create_indexes(relation) }}
{%- endmacro %}
