{#- A microbatch only merges rows into the table. Without this, it would keep a
    day whose payments were all deleted. -#}
{% macro delete_days_without_payments() -%}
    {%- if is_incremental() -%}
        delete from {{ this }} as days
        where not exists (
            select 1 from {{ ref('stg_shop__payments').render() }} as payments
            where
                payments.paid_at::date = days.payment_date
                and payments.payment_method = days.payment_method
        )
    {%- endif -%}
{%- endmacro %}
