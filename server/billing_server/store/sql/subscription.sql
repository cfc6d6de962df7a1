-- name: insert
-- New subscriptions.
INSERT INTO subscriptions (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed subscriptions, whole.
UPDATE subscriptions AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The subscriptions with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM subscriptions WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of subscriptions, newest first.
SELECT {columns} FROM subscriptions WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_due
-- What wakes in some books, each until a moment of its own.
SELECT {columns:s}
FROM unnest($2::text[], $3::bigint[]) AS wanted (customer, until)
CROSS JOIN LATERAL (
    SELECT * FROM subscriptions
    WHERE account_id = $1 AND customer = wanted.customer AND wake_at <= wanted.until
    OFFSET 0
) AS s
ORDER BY s.id;

-- name: load_live
-- All subscriptions of some customers that have not ended.
SELECT {columns:s}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM subscriptions
    WHERE account_id = $1 AND customer = wanted.customer AND status NOT IN ('canceled', 'incomplete_expired')
    OFFSET 0
) AS s
ORDER BY s.id;

-- name: count_live
-- How many subscriptions of some customers have not ended.
SELECT wanted.customer, (
    SELECT count(*) FROM subscriptions AS s
    WHERE s.account_id = $1 AND s.customer = wanted.customer AND s.status NOT IN ('canceled', 'incomplete_expired')
) AS live
FROM unnest($2::text[]) AS wanted (customer);

-- filter: customer
customer = ?

-- filter: statuses
status = ANY (?)

-- filter: ended
(status IN ('canceled', 'incomplete_expired')) = ?

-- filter: price
items @> jsonb_build_array(jsonb_build_object('price', ?::text))

-- filter: collection_method
collection_method = ?

-- filter: test_clock
customer IN (SELECT customer FROM books WHERE account_id = $1 AND test_clock = ?)

-- filter: created_from
created >= ?

-- filter: created_before
created < ?
