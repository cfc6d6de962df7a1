-- name: insert
-- New subscriptions.
INSERT INTO subscriptions (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed subscriptions, whole.
UPDATE subscriptions AS o SET {assignments}
FROM unnest($2::{row}[]) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The subscriptions with these ids.
SELECT {columns} FROM subscriptions WHERE account_id = $1 AND id = ANY ($2);

-- name: list
-- A page of subscriptions, newest first.
SELECT {columns} FROM subscriptions WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_due
-- What wakes in some books, each until a moment of its own.
SELECT {columns:s}
FROM unnest($2::text[], $3::bigint[]) AS d (customer, until)
JOIN subscriptions AS s ON s.account_id = $1 AND s.customer = d.customer AND s.wake_at <= d.until
ORDER BY s.id;

-- name: load_live
-- All subscriptions of some customers that have not ended.
SELECT {columns} FROM subscriptions
WHERE account_id = $1 AND customer = ANY ($2) AND status NOT IN ('canceled', 'incomplete_expired')
ORDER BY id;

-- name: count_live
-- How many subscriptions of some customers have not ended.
SELECT customer, count(*) AS live FROM subscriptions
WHERE account_id = $1 AND customer = ANY ($2) AND status NOT IN ('canceled', 'incomplete_expired')
GROUP BY customer;

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
