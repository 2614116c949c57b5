-- depends_on: {{ ref('int_order_activity') }}
{{
    config(
        materialized='incremental',
        incremental_strategy='merge',
        unique_key='order_id',
        on_schema_change='fail',
        indexes=[
            {'columns': ['order_id'], 'unique': true},
            {'columns': ['last_activity_at']},
            {'columns': ['order_date']},
        ],
        post_hook="{% if not is_incremental() %}analyze {{ this }}{% endif %}",
    )
}}

{#- As an array, which every view below hands on to an index. -#}
{% set only_changed -%}
    {% if is_incremental() %}where order_id = any((select order_ids from changed)::integer []){% endif %}
{%- endset %}

with

{% if is_incremental() %}
    changed as (
        select
            array(
                select distinct activity.order_id
                from {{ ref('int_order_activity') }} as activity
                -- A range with two ends, of which PostgreSQL expects few rows, and so goes by the indexes.
                where activity.activity_at between (
                    select max(known.last_activity_at) - interval '{{ var("incremental_lookback_days") }} days'
                    from {{ this }} as known
                ) and 'infinity'
            ) as order_ids
    ),
{% endif %}

orders as (
    select * from {{ ref('stg_orders') }}
    {{ only_changed }}
),

order_items as (
    select
        order_id,
        count(*) as line_count,
        sum(quantity) as unit_count,
        sum(gross_amount) as gross_amount,
        sum(discount_amount) as discount_amount,
        sum(gross_amount) - sum(discount_amount) as revenue,
        sum(cost) as cost,
        sum(gross_amount) - sum(discount_amount) - sum(cost) as margin
    from {{ ref('int_order_items') }}
    {{ only_changed }}
    group by order_id
),

order_payments as (
    select * from {{ ref('int_order_payments') }}
    {{ only_changed }}
),

order_returns as (
    select
        order_id,
        sum(refund_amount) as refund_amount,
        max(returned_at) as last_returned_at
    from {{ ref('int_returns') }}
    {{ only_changed }}
    group by order_id
),

-- Full joins, because PostgreSQL never compares each row with each other one for them. For others it would:
-- however many orders have changed, it expects ten. Where a whole table is made nothing is materialized, and
-- it takes these for the plain joins that they are.
joined as {% if is_incremental() %}materialized {% endif %}(
    select
        orders.order_id,
        orders.customer_id,
        orders.order_status,
        orders.is_sale,
        orders.ordered_at,
        order_items.line_count,
        order_items.unit_count,
        order_items.gross_amount,
        order_items.discount_amount,
        order_items.revenue,
        order_items.cost,
        order_items.margin,
        order_payments.amount_paid,
        order_payments.last_paid_at,
        order_returns.refund_amount,
        greatest(
            orders.updated_at, order_payments.last_payment_activity_at, order_returns.last_returned_at
        ) as last_activity_at
    from orders
    full join order_items on orders.order_id = order_items.order_id
    full join order_payments on orders.order_id = order_payments.order_id
    full join order_returns on orders.order_id = order_returns.order_id
),

final as (
    select
        order_id,
        customer_id,
        ordered_at::date as order_date,
        ordered_at,
        order_status,
        is_sale,
        line_count::integer as line_count,
        unit_count::integer as unit_count,
        gross_amount::numeric(12, 2) as gross_amount,
        discount_amount::numeric(12, 2) as discount_amount,
        revenue::numeric(12, 2) as revenue,
        cost::numeric(12, 2) as cost,
        margin::numeric(12, 2) as margin,
        coalesce(refund_amount, 0)::numeric(12, 2) as refund_amount,
        (revenue - coalesce(refund_amount, 0))::numeric(12, 2) as net_revenue,
        coalesce(amount_paid, 0)::numeric(12, 2) as amount_paid,
        coalesce(amount_paid, 0) = revenue as is_fully_paid,
        last_paid_at::date - ordered_at::date as days_to_pay,
        last_activity_at
    from joined
    where
        order_id is not null
        and line_count is not null
)

select * from final
{% if is_incremental() %}
    -- A row that is as it was is not written again. Both have their columns in the order of the contract.
    except
    select * from {{ this }}
    {{ only_changed }}
{% endif %}
