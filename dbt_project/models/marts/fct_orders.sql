{{
    config(
        materialized='incremental',
        incremental_strategy='merge',
        unique_key='order_id',
        on_schema_change='fail',
        pre_hook="{{ delete_orders_that_are_gone() }}",
    )
}}

with

orders as (

    select * from {{ ref('stg_shop__orders') }}

),

order_items as (

    select * from {{ ref('int_order_items_priced') }}

),

order_payments as (

    select * from {{ ref('int_payments_summed_to_orders') }}

),

returns as (

    select * from {{ ref('int_returns_joined_to_order_items') }}

),

order_lines as (

    select
        order_id,
        count(*)::integer as line_count,
        sum(quantity)::integer as unit_count,
        sum(gross_amount) as gross_amount,
        sum(discount_amount) as discount_amount,
        sum(cost) as cost,
        sum({{ to_seconds('loaded_at') }}) as load_fingerprint

    from order_items
    group by 1

),

order_returns as (

    select
        order_id,
        sum(refund_amount) as refund_amount,
        max(returned_at) as last_returned_at,
        sum({{ to_seconds('loaded_at') }}) as load_fingerprint

    from returns
    group by 1

),

-- An order without lines is kept, with zero lines and amounts.
joined as (

    select
        orders.order_id,
        orders.customer_id,
        orders.order_status,
        orders.is_sale,
        orders.ordered_at,
        order_payments.last_paid_at,
        coalesce(order_lines.line_count, 0) as line_count,
        coalesce(order_lines.unit_count, 0) as unit_count,
        coalesce(order_lines.gross_amount, 0) as gross_amount,
        coalesce(order_lines.discount_amount, 0) as discount_amount,
        coalesce(order_lines.cost, 0) as cost,
        coalesce(order_returns.refund_amount, 0) as refund_amount,
        coalesce(order_payments.amount_paid, 0) as amount_paid,
        greatest(
            coalesce(orders.updated_at, orders.ordered_at),
            order_payments.last_payment_activity_at,
            order_returns.last_returned_at
        ) as last_activity_at,
        coalesce(orders.load_fingerprint, 0)
        + coalesce(order_lines.load_fingerprint, 0)
        + coalesce(order_payments.load_fingerprint, 0)
        + coalesce(order_returns.load_fingerprint, 0) as load_fingerprint

    from orders
    left join order_lines on orders.order_id = order_lines.order_id
    left join order_payments on orders.order_id = order_payments.order_id
    left join order_returns on orders.order_id = order_returns.order_id

),

calculated as (

    select
        *,
        gross_amount - discount_amount as revenue

    from joined

),

final as (

    select
        order_id,
        customer_id,
        order_status,
        line_count,
        unit_count,
        gross_amount::numeric(12, 2) as gross_amount,
        discount_amount::numeric(12, 2) as discount_amount,
        revenue::numeric(12, 2) as revenue,
        cost::numeric(12, 2) as cost,
        (revenue - cost)::numeric(12, 2) as margin,
        refund_amount::numeric(12, 2) as refund_amount,
        (revenue - refund_amount)::numeric(12, 2) as net_revenue,
        amount_paid::numeric(12, 2) as amount_paid,
        (last_paid_at::date - ordered_at::date)::integer as days_to_pay,
        load_fingerprint::numeric(24, 6) as load_fingerprint,
        is_sale,
        line_count > 0 and amount_paid = revenue as is_fully_paid,
        ordered_at::date as order_date,
        ordered_at,
        last_activity_at

    from calculated

)

select final.* from final
{% if is_incremental() %}
    -- Write only orders with a raw row that was added, loaded again or removed:
    -- their fingerprint has changed. A watermark would miss a removed row, and
    -- a row whose transaction ended late.
    left join {{ this }} as known on final.order_id = known.order_id
    where final.load_fingerprint is distinct from known.load_fingerprint
{% endif %}
