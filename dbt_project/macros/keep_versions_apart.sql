{#- dbt starts a version at the row's `updated_at`. If a product comes back
    after its deletion, or changes without a new `updated_at`, the new version
    would start at the time of an earlier one, and dbt would give both the same
    key: a hash of the product and that time. Such a version starts at the time
    of the run that found it, and so does one with a time in the future. -#}
{% macro keep_versions_apart() -%}
    update {{ this }} as version
    set
        dbt_valid_from = now() at time zone 'UTC',
        dbt_scd_id = md5(
            version.product_id || '|' || (now() at time zone 'UTC')
        )
    where
        version.dbt_valid_to is null
        and (
            version.dbt_valid_from > now() at time zone 'UTC'
            or exists (
                select 1 from {{ this }} as earlier
                where
                    earlier.product_id = version.product_id
                    and earlier.dbt_valid_to is not null
                    and (
                        earlier.dbt_valid_to > version.dbt_valid_from
                        or earlier.dbt_valid_from >= version.dbt_valid_from
                    )
            )
        );

    -- The version before it ends at the same time.
    update {{ this }}
    set dbt_valid_to = now() at time zone 'UTC'
    where
        dbt_valid_to <= dbt_valid_from
        or dbt_valid_to > now() at time zone 'UTC'
{%- endmacro %}
