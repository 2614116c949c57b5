{#- The load time is the time of reading. -#}
{% macro publish_seed() -%}
    create or replace view {{ this.incorporate(path={'identifier': model.name}) }} as
    select *, current_timestamp() as _loaded_at from {{ this }}
{%- endmacro %}
