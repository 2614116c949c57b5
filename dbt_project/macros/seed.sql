{#- Seeds are loaded as dbt does it, unless `invoke generate` has filled the raw tables: these are left as they are, however
    often a build begins with its seeds. Dropping raw.generated gives the tables back to the seeds. -#}
{% materialization seed, adapter='postgres' -%}
    {%- if not adapter.get_relation(this.database, this.schema, 'generated') -%}
        {{ return(dbt.materialization_seed_default()) }}
    {%- endif -%}
    {%- do store_result('agate_table', response='KEPT') -%}
    {%- call noop_statement('main', 'KEPT', 'KEPT', none) -%}
        -- generated
    {%- endcall -%}
    {{ return({'relations': [this]}) }}
{%- endmaterialization %}
