-- The script that psql runs for `invoke generate`, with the variables that switchyard/generate.py sets.
--
-- It makes a shop of any size inside the server: the SQL version of dbt_project/scripts/generate_seeds.py, which makes the seeds.
-- Every value is a hash of the number of its row, of its kind, and of the seed. So the order of execution does not matter, any
-- part can be made without the rest, and the same size and seed give the same rows. The whole life of an order (paid, shipped,
-- completed, returned) is fixed when it is placed; the last day of the shop decides how much of it is in the tables. To append a
-- day, the script adds what became known on that day: new orders, and changes to older ones.

create function pg_temp.u(number bigint, what bigint) returns float8 language sql immutable parallel safe as
    -- Uniform over [0, 1). It uses integer arithmetic, which gives the same result on every machine.
    $$ select (hashint8extended(number, what) & 9007199254740991)::float8 / 9007199254740992 $$;

create function pg_temp.normal(share float8) returns float8 language sql immutable as
    -- The quantile of the normal distribution, approximately (Tukey's lambda).
    $$ select (power(share, 0.135) - power(1 - share, 0.135)) / 0.1975 $$;

create function pg_temp.slots(weights numeric[]) returns int[] language sql immutable as
    -- A thousand indexes into weights, each as often as its weight: a random one of them is a weighted choice.
    $$ with weighed as (
           select n, sum(w) over (order by n) as until, sum(w) over () as total, w from unnest(weights) with ordinality as t (w, n)
       )
       select array_agg(n::int order by i)
       from weighed inner join generate_series(1, 1000) as i on i * total > (until - w) * 1000 and i * total <= until * 1000 $$;

create function pg_temp.known(customers bigint, at bigint) returns bigint language sql immutable as
    -- The number of customers `at` seconds after the first day; a fifth of them signed up in the four months before it.
    $$ select case when at < 0 then greatest(0, (at + 10368000) * (customers / 5) / 10281600) else
           customers / 5 + least(customers - customers / 5, (customers - customers / 5) * at / 60480000)
               + greatest(0, (customers - customers / 5) * (at - 63072000) / 60480000) end $$;

create procedure pg_temp.report(what text) language plpgsql as
    -- For the progress line. A warning, because the server prints notices of its own.
    $$ begin raise warning '%', what; end $$;

create procedure pg_temp.add(orders bigint, seed bigint, first_day date, last_day date, new boolean) language plpgsql as $$
declare
    opening constant bigint := extract(epoch from timestamptz '2024-07-01 00:00Z');
    closing constant bigint := extract(epoch from (last_day + 1)::timestamp) - 1;  -- everything up to here is known
    known constant bigint := case when new then 0 else extract(epoch from first_day::timestamp) - 1 end;  -- and up to here was known before
    day constant bigint := 86400;
    r constant bigint := seed * 100;  -- r + 1, r + 2, ...: the kinds of random numbers
    customers constant bigint := greatest(1, orders * 3 / 20);
    first_names constant text[] := array[
        'Aisha', 'Ana', 'Anders', 'Arjun', 'Beatriz', 'Ben', 'Carla', 'Chloé', 'Daniel', 'Diego', 'Elena', 'Emma', 'Farah', 'Felix',
        'Grace', 'Hana', 'Hugo', 'Ines', 'Ivan', 'Jack', 'Jana', 'José', 'Julia', 'Kai', 'Laura', 'Leo', 'Lina', 'Lucas', 'Maria',
        'Mateo', 'Mia', 'Nina', 'Noah', 'Olivia', 'Omar', 'Priya', 'Rosa', 'Sam', 'Sofia', 'Tom', 'Yuki', 'Zoë'];
    last_names constant text[] := array[
        'Andersen', 'Bauer', 'Becker', 'Brown', 'Chen', 'Costa', 'Davis', 'Dubois', 'Fernández', 'García', 'Hansen', 'Hoffmann',
        'Ivanova', 'Jensen', 'Jones', 'Kim', 'Kumar', 'Larsson', 'Lopez', 'Martin', 'Miller', 'Moreau', 'Müller', 'Nguyen', 'Novak',
        'O''Brien', 'Patel', 'Rossi', 'Santos', 'Sato', 'Schmidt', 'Silva', 'Singh', 'Smith', 'Taylor', 'Wagner', 'Walker', 'Weber',
        'Williams', 'Wilson', 'Wright', 'Yılmaz'];
    countries constant text[] := array['US', 'DE', 'GB', 'FR', 'NL', 'ES', 'IN', 'CA'];
    country_slots constant int[] := pg_temp.slots('{38,16,14,10,6,6,5,5}');
    -- A customer's interest fades over 120 days; some are very keen, and some never buy.
    ages constant int[] := array(select round(-120 * ln(1 - (i - 0.5) / 1000)) from generate_series(1, 1000) as i);
    keen_slots constant int[] := pg_temp.slots(array(
        select case when i < 5 then 0 else round(1000 * exp(0.9 * pg_temp.normal((i - 4.5) / 95)))::numeric end from generate_series(0, 99) as i));
    product_slots int[];
    chunk constant bigint := 200000;
    low bigint;
    high bigint;
    last bigint;
begin
    -- Products: prices in cents.
    create temporary table product on commit drop as
    select
        id,
        round(regexp_replace(unit_price, '[^0-9.]', '', 'g')::numeric * 100)::int as price,
        round(unit_cost * 100)::int as cost,
        extract(epoch from updated_at)::bigint as changed,
        trim(name) in ('Stand Mixer', 'Floor Rug') as clearance
    from raw.raw_products;
    select array_agg(chosen.id order by i) into product_slots
    from (
        select pg_temp.slots(array_agg(
            round(1000 * exp(0.6 * pg_temp.normal(pg_temp.u(id, 7)))::numeric) * case when price < 10000 then 3 else 1 end order by id
        )) as numbers from product
    ) as drawn
    cross join unnest(drawn.numbers) with ordinality as s (number, i)
    inner join (select id, row_number() over (order by id) as number from product) as chosen on chosen.number = s.number;

    -- The hours of the calendar, busy or quiet, with the orders of each, so that the first two years have the requested number.
    create temporary table hour on commit drop as
    with weighed as (
        select
            opening + n * day + h * 3600 as starts,
            (array[8, 8, 9, 10, 10, 9, 8, 8, 10, 11, 19, 18])[extract(month from date '2024-07-01' + n)]
            * (array[11, 10, 10, 10, 9, 12, 13])[extract(isodow from date '2024-07-01' + n)]
            * (7300 + 6 * n)::bigint
            * (array[1, 2, 5, 11, 23, 44, 80, 136, 217, 325, 457, 605, 752, 878, 964, 995, 964, 878, 752, 605, 457, 325, 217, 304])[h + 1]
            as weight
        from generate_series(0, greatest(last_day, date '2026-06-30') - date '2024-07-01') as n
        cross join generate_series(0, 23) as h
    ),
    summed as (
        select starts, sum(weight::numeric) over (order by starts) as until, weight from weighed
    ),
    whole as (
        select max(until) as until from summed where starts < extract(epoch from timestamptz '2026-07-01 00:00Z')
    )
    select
        starts,
        div((summed.until - weight) * orders, whole.until)::bigint + 1 as first,
        div(summed.until * orders, whole.until)::bigint as last
    from summed cross join whole
    where starts <= closing;
    delete from hour where hour.first > hour.last;
    analyze hour;

    insert into raw.raw_customers (id, first_name, last_name, email, country, signed_up_at)
    select
        id,
        case when pg_temp.u(id, r + 3) < 0.03 then ' ' || first_name || ' ' else first_name end,
        case when pg_temp.u(id, r + 4) < 0.03 then ' ' || last_name || ' ' else last_name end,
        case when pg_temp.u(id, r + 5) >= 0.10 then email else
            (array[' ' || email || ' ', upper(email), initcap(email)])[1 + floor(pg_temp.u(id, r + 6) * 3)::int] end,
        case when pg_temp.u(id, r + 7) >= 0.08 then country else
            (array[' ' || country || ' ', lower(country), '', '  '])[1 + floor(pg_temp.u(id, r + 8) * 4)::int] end,
        to_timestamp(signed_up)
    from (
        select
            id, first_name, last_name, country, signed_up,
            translate(lower(first_name || '.' || last_name), 'éëíüáı''', 'eeiuai') || id || '@example.com' as email
        from (
            select
                id,
                first_names[1 + floor(pg_temp.u(id, r + 1) * 42)::int] as first_name,
                last_names[1 + floor(pg_temp.u(id, r + 2) * 42)::int] as last_name,
                countries[country_slots[1 + floor(pg_temp.u(id, r + 9) * 1000)::int]] as country,
                opening + floor(case
                    when id <= customers / 5 then -120 * day + 119 * day * (id - 1 + pg_temp.u(id, r + 10)) / (customers / 5)
                    else 700 * day * (id - customers / 5 - 1 + pg_temp.u(id, r + 10)) / (customers - customers / 5)
                        + case when id > customers then 30 * day else 0 end
                end)::bigint as signed_up
            from generate_series(1, greatest(1, pg_temp.known(customers, closing - opening))) as id
        ) as named
    ) as addressed
    where signed_up > known;
    call pg_temp.report('customers');

    -- Older orders cannot change any more: an order is paid after 45 days at most, and sent back up to 28 days later.
    select coalesce(min(hour.first), 0), coalesce(max(hour.last), -1) into low, last from hour where starts > known - 74 * day;
    while low <= last loop
        high := least(low + chunk - 1, last);

        create temporary table placed on commit drop as
        with placed as materialized (  -- so that no expression is computed twice
            select
                k, ordered,
                case when u_method < 0.60 then 'credit_card' when u_method < 0.80 then 'paypal'
                    when u_method < 0.92 then 'bank_transfer' else 'gift_card' end as method,
                ordered + floor(case  -- an invoice is paid within two weeks, or late
                    when u_method < 0.80 or u_method >= 0.92 then 20 + pg_temp.u(k, r + 14) * 281
                    when pg_temp.u(k, r + 13) < 0.15 then (20 + pg_temp.u(k, r + 14) * 25) * day
                    else (1 + pg_temp.u(k, r + 14) * 13) * day end)::bigint as tried,
                case when u_method < 0.60 and pg_temp.u(k, r + 15) < 0.06 then floor(60 + pg_temp.u(k, r + 16) * 21540)::bigint end as again,
                ordered + floor(21600 + pg_temp.u(k, r + 17) * 237600)::bigint as shipped,
                floor((2 + pg_temp.u(k, r + 18) * 4) * day)::bigint as travel,
                case when pg_temp.u(k, r + 19) < 0.055 then ordered + floor(3600 + pg_temp.u(k, r + 20) * 169200)::bigint end as cancelled,
                pg_temp.u(k, r + 22) as u_back,
                floor((3 + pg_temp.u(k, r + 23) * 25) * day)::bigint as regret,
                ordered - opening as since,
                exp((opening - ordered) / (120.0 * day)::float8) as faded,
                greatest(1, pg_temp.known(customers, ordered - opening)) as customers_known,
                pg_temp.u(k, r + 24) as u_line
            from (
                select k, starts + floor(3600 * (k - hour.first + pg_temp.u(k, r + 11)) / (hour.last - hour.first + 1))::bigint as ordered,
                    pg_temp.u(k, r + 12) as u_method
                from hour cross join lateral generate_series(greatest(hour.first, low), least(hour.last, high)) as k
                where hour.last >= low and hour.first <= high
            ) as timed
        ),
        -- Interest fades over the months after sign-up, but never quite dies.
        drawn as materialized (
            select
                *,
                tried + coalesce(again, 0) as paid,
                coalesce(nullif(case
                    -- In proportion to the sum of interest: the part that never dies, and the part that fades.
                    when pg_temp.u(k, r + 25) * (0.25 * customers_known + customers * (0.137 - 0.01 * faded)) < 0.25 * customers_known then 0
                    else pg_temp.known(customers, since - ages[1 + floor(pg_temp.u(k, r + 26) * 1000)::int] * day)
                end, 0), 1 + floor(pg_temp.u(k, r + 26) * customers_known)::bigint) - 1 as near,
                keen_slots[1 + floor(pg_temp.u(k, r + 27) * 1000)::int] as keen
            from placed
        ),
        chosen as materialized (
            select *, near / 100 * 100 + (keen * 37 + near / 100 * 61) % 100 + 1 as customer from drawn
        )
        select
            *,
            case when customer <= customers_known then customer when customer > 100 then customer - 100
                else 1 + customer % customers_known end as customer_id,
            greatest(shipped + travel, paid) as completed,
            greatest(shipped + travel, paid) + regret as returned
        from chosen;

        create temporary table line on commit drop as
        with basket as materialized (
            select k, ordered, u_back, (array[
                product_slots[1 + floor(pg_temp.u(k, r + 41) * 1000)::int], product_slots[1 + floor(pg_temp.u(k, r + 42) * 1000)::int],
                product_slots[1 + floor(pg_temp.u(k, r + 43) * 1000)::int], product_slots[1 + floor(pg_temp.u(k, r + 44) * 1000)::int]
            ])[1 : case when u_line < 0.48 then 1 when u_line < 0.78 then 2 when u_line < 0.93 then 3 else 4 end] as products
            from placed
        ),
        line as materialized (
            select k, ordered, u_back, number, product_id, (k - 1) * 4 + number as id,
                pg_temp.u((k - 1) * 4 + number, r + 31) as u_quantity, pg_temp.u((k - 1) * 4 + number, r + 32) as u_percent
            from basket cross join unnest(products) with ordinality as drawn (product_id, number)
            where array_position(products, product_id) = number
        ),
        priced as materialized (
            select
                line.*, product.cost,
                case when ordered >= changed then price else price * 94 / 100 end as price,
                case when price >= 20000 or u_quantity < 0.70 then 1 when u_quantity < 0.90 then 2 when u_quantity < 0.97 then 3 else 4
                    end as quantity,
                case when clearance and pg_temp.u(line.id, r + 33) < 0.15 then 30 when u_percent < 0.72 then 0 when u_percent < 0.80 then 5
                    when u_percent < 0.90 then 10 when u_percent < 0.96 then 15 else 20 end as percent
            from line inner join product on product.id = line.product_id
        )
        select
            k, ordered, id, product_id, quantity, price, cost,
            quantity * price * percent / 100 as discount,
            quantity * price - quantity * price * percent / 100 as total,
            case when u_back < 0.045 then quantity when u_back < 0.0832 and number = 1
                then 1 + floor(pg_temp.u(id, r + 34) * quantity)::int end as sent_back
        from priced;

        create temporary table state on commit drop as
        with known_now as materialized (
            select
                *,
                case
                    when cancelled <= closing then 'cancelled' when cancelled is not null then 'pending'
                    when whole and returned <= closing then 'returned' when completed <= closing then 'completed'
                    when shipped <= closing then 'shipped' else 'pending' end as status
            from placed inner join (
                select k, sum(total)::int as total, bool_and(coalesce(sent_back = quantity, false)) as whole from line group by k
            ) as summed using (k)
        ),
        worded as materialized (
            select *, case when status = 'cancelled' and pg_temp.u(k, r + 52) < 0.2 then 'canceled' else status end as word from known_now
        )
        select
            *,
            -- Sometimes as a person or an old system would have written it.
            case when pg_temp.u(k, r + 53) >= 0.05 then word else
                (array[upper(word), initcap(word), ' ' || word || ' '])[1 + floor(pg_temp.u(k, r + 54) * 3)::int] end as written,
            case status when 'pending' then ordered when 'cancelled' then cancelled when 'shipped' then shipped
                when 'completed' then completed else returned end as updated,
            coalesce(cancelled, shipped) > known as was_pending,
            pg_temp.u(k, r + 51) < 0.01 as left_behind  -- the loader keeps the older version of the row
        from worded;
        create index on state (k);
        analyze state;

        update raw.raw_orders as o
        set status = state.written, updated_at = to_timestamp(state.updated), _loaded_at = now()
        from state
        where o.id = state.k and state.ordered <= known and state.updated > known and not (was_pending and left_behind)
            and (o.updated_at = o.ordered_at) = was_pending;

        insert into raw.raw_orders (id, customer_id, status, ordered_at, updated_at)
        select k, customer_id, version.status, to_timestamp(ordered), to_timestamp(version.updated)
        from state
        cross join lateral (
            select 'pending', ordered where left_behind and status <> 'pending' and ordered > known
            union all
            select written, updated where ordered > known or updated > known and was_pending and left_behind
        ) as version (status, updated)
        order by k, version.updated;

        insert into raw.raw_order_items (id, order_id, product_id, quantity, unit_price, unit_cost, discount_amount)
        select id, k, product_id, quantity, price * 0.01, cost * 0.01, discount * 0.01
        from line where ordered > known order by id;

        insert into raw.raw_payments (id, order_id, method, status, amount, paid_at)
        select
            id, k,
            case when pg_temp.u(id, r + 61) < 0.05 then initcap(replace(method, '_', ' ')) else method end,
            case when pg_temp.u(id, r + 62) >= 0.03 then status
                when pg_temp.u(id, r + 63) < 0.5 then upper(status) else ' ' || status || ' ' end,
            case when pg_temp.u(id, r + 64) >= 0.05 then amount
                when pg_temp.u(id, r + 65) < 0.5 then '$' || amount else ' ' || amount || ' ' end,
            to_timestamp(at)
        from (
            select k, (k - 1) * 2 + paid.number as id, paid.method, paid.status, (paid.cents * 0.01)::numeric(12, 2)::text as amount, at
            from state
            cross join lateral (
                -- Cancelled orders were never paid, or got their money back; pending ones have not been paid yet.
                select 1, method, 'failed', total, tried where again is not null and cancelled is null
                union all
                select 2, method, case when cancelled is null then 'succeeded' else 'refunded' end,
                    case when method = 'gift_card' then least(total, 5000) else total end, paid
                where cancelled is null or paid <= cancelled and pg_temp.u(k, r + 21) < 0.6
                union all
                select 1, 'credit_card', case when cancelled is null then 'succeeded' else 'refunded' end, total - 5000, paid
                where method = 'gift_card' and total > 5000
                    and (cancelled is null or paid <= cancelled and pg_temp.u(k, r + 21) < 0.6)
            ) as paid (number, method, status, cents, at)
            where greatest(at, coalesce(cancelled, shipped)) between known + 1 and closing
        ) as arrived
        order by id;

        insert into raw.raw_returns (id, order_item_id, quantity, reason, refund_amount, returned_at)
        select
            line.id, line.id, sent_back,
            case when pg_temp.u(line.id, r + 71) < 0.1 then upper(left(reason, 1)) || replace(substr(reason, 2), '_', ' ') else reason end,
            line.total * sent_back / quantity * 0.01, to_timestamp(returned)
        from line inner join state using (k)
        cross join lateral (
            select case when u < 0.40 then 'changed_mind' when u < 0.65 then 'defective' when u < 0.80 then 'wrong_item'
                else 'arrived_late' end as reason
            from pg_temp.u(k, r + 70) as u
        ) as why
        where sent_back is not null and cancelled is null and returned between known + 1 and closing
        order by line.id;

        drop table placed, line, state;
        call pg_temp.report(format('%s of %s orders', to_char(high, 'FM999,999,999'), to_char(last, 'FM999,999,999')));
        low := high + 1;
    end loop;
    drop table product, hour;
end $$;

call pg_temp.add(:orders, :seed, :'first_day', :'last_day', :new);

delete from raw.generated;
insert into raw.generated values (:orders, :seed, :'last_day');

call pg_temp.report('indexes');
create unique index if not exists raw_customers_id on raw.raw_customers (id);
create index if not exists raw_orders_id on raw.raw_orders (id, updated_at desc);
create unique index if not exists raw_order_items_id on raw.raw_order_items (id);
create index if not exists raw_order_items_order on raw.raw_order_items (order_id);
create index if not exists raw_payments_order on raw.raw_payments (order_id);
create index if not exists raw_returns_item on raw.raw_returns (order_item_id);
analyze raw.raw_customers, raw.raw_products, raw.raw_orders, raw.raw_order_items, raw.raw_payments, raw.raw_returns;
