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

-- A full join, because PostgreSQL never makes loops of one: it expects far fewer rows here than a day can bring.
order_money as (
    select
        coalesce(order_payments.order_id, order_returns.order_id) as order_id,
        order_payments.amount_paid,
        order_payments.last_paid_at,
        order_returns.refund_amount,
        greatest(order_payments.last_payment_activity_at, order_returns.last_returned_at) as last_activity_at
    from order_payments
    full join order_returns on order_payments.order_id = order_returns.order_id
),

final as (
    select
        orders.order_id,
        orders.customer_id,
        orders.ordered_at::date as order_date,
        orders.ordered_at,
        orders.order_status,
        orders.is_sale,
        order_items.line_count::integer as line_count,
        order_items.unit_count::integer as unit_count,
        order_items.gross_amount::numeric(12, 2) as gross_amount,
        order_items.discount_amount::numeric(12, 2) as discount_amount,
        order_items.revenue::numeric(12, 2) as revenue,
        order_items.cost::numeric(12, 2) as cost,
        order_items.margin::numeric(12, 2) as margin,
        coalesce(order_money.refund_amount, 0)::numeric(12, 2) as refund_amount,
        (order_items.revenue - coalesce(order_money.refund_amount, 0))::numeric(12, 2) as net_revenue,
        coalesce(order_money.amount_paid, 0)::numeric(12, 2) as amount_paid,
        coalesce(order_money.amount_paid, 0) = order_items.revenue as is_fully_paid,
        order_money.last_paid_at::date - orders.ordered_at::date as days_to_pay,
        -- An order changes not only by its own row, but also by what is paid and what is sent back.
        greatest(orders.updated_at, order_money.last_activity_at) as last_activity_at
    from orders
    inner join order_items on orders.order_id = order_items.order_id
    left join order_money on orders.order_id = order_money.order_id
)

select * from final
