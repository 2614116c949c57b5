{#- Creates a view, with the seed's name, of a seed whose table has an alias
    (seeds/raw/_seeds.yml). The sources read this view. If something else has
    that name, such as a table from a loader or from `invoke generate`, it does
    not change, and the sources read it instead. -#}
{% macro publish_seed() -%}
    {%- if this.identifier != model.name -%}
        {%- set view = this.incorporate(path={'identifier': model.name}) -%}
        {%- set found = adapter.get_relation(
            view.database, view.schema, view.identifier
        ) -%}
        {%- if not found -%}
            create view {{ view }} as select * from {{ this }}
        {%- elif not found.is_view -%}
            {%- do log(
                found.render() ~ " is a " ~ found.type ~ ", and is not changed: "
                ~ "the models read it instead of the seed " ~ model.name ~ ".",
                info=true
            ) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
