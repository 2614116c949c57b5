{#- Spark's versions of the macros; its session is in UTC. -#}
{% macro spark__to_utc(column) -%}
    {{ column }}
{%- endmacro %}

{% macro spark__to_seconds(column) -%}
    (unix_micros({{ column }})::decimal(18, 0) * 0.000001)
{%- endmacro %}

{% macro spark__periods(unit, first, last) -%}
    explode(sequence({{ first }}::date, {{ last }}::date, interval 1 {{ unit }}))
{%- endmacro %}

{#- A Parquet file cannot get a column with a default; see publish_seed.sql. -#}
{% macro spark__stamp_loads() -%}
{%- endmacro %}
