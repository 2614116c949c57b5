with

order_versions as (
    select * from {{ ref('stg_order_versions') }}
),

payments as (
    select * from {{ ref('stg_payments') }}
),

returns as (
    select * from {{ ref('stg_returns') }}
),

order_items as (
    select * from {{ ref('stg_order_items') }}
),

-- An order changes not only by its own row, but also by what is paid and what is sent back.
final as (
    select
        order_id,
        updated_at as activity_at
    from order_versions
    union all
    select
        order_id,
        paid_at as activity_at
    from payments
    union all
    select
        order_items.order_id,
        returns.returned_at as activity_at
    from returns
    inner join order_items on returns.order_item_id = order_items.order_item_id
)

select * from final
