{#- Shows a seed whose table has an alias (seeds/raw/_seeds.yml) under the seed's own name, as a view: this is
    what the sources read. `invoke generate` makes tables of these names. They are left alone as long as there is
    a table raw.generated. -#}
{% macro publish_seed() -%}
    {%- set generated = adapter.get_relation(this.database, this.schema, 'generated') -%}
    {%- if this.identifier != model.name and not generated -%}
        {%- set before = adapter.get_relation(this.database, this.schema, model.name) -%}
        {%- if before and not before.is_view -%}
            {%- do adapter.drop_relation(before) -%}
        {%- endif -%}
        create or replace view {{ this.incorporate(path={'identifier': model.name}) }} as select * from {{ this }}
    {%- endif -%}
{%- endmacro %}
