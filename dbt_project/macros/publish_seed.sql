{#- Shows a seed whose table has an alias (seeds/raw/_seeds.yml) under the
    seed's own name, as a view: this is what the sources read. Whatever else has
    that name, such as a table of a loader's or of `invoke generate`, stays as
    it is, and is what the sources read instead. -#}
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
                found.render() ~ " is a " ~ found.type ~ ", and stays as it is: "
                ~ "the models read it, and not the seed " ~ model.name ~ ".",
                info=true
            ) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
