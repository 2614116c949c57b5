{#- Seeds are loaded as dbt does it, unless `invoke generate` has filled the raw tables: these are left as they are, however
    often a build begins with its seeds, and are shown as skipped. Dropping raw.generated gives the tables back to the seeds. -#}
{% materialization seed, adapter='postgres' -%}
    {%- set generated = ['raw_customers', 'raw_products', 'raw_orders', 'raw_order_items', 'raw_payments', 'raw_returns'] -%}
    {%- if this.identifier not in generated or not adapter.get_relation(this.database, this.schema, 'generated') -%}
        {{ return(dbt.materialization_seed_default()) }}
    {%- endif -%}
    {%- do store_result('agate_table', response='KEPT') -%}
    {%- call noop_statement('main', 'KEPT', 'KEPT', none) -%}
        -- generated
    {%- endcall -%}
    {{ return({'relations': [this]}) }}
{%- endmaterialization %}
