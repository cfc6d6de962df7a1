-- name: insert
-- New schedules.
INSERT INTO subscription_schedules (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed schedules, whole.
UPDATE subscription_schedules AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The schedules with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM subscription_schedules WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of schedules, newest first.
SELECT {columns} FROM subscription_schedules WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_live
-- All schedules of some customers that have not ended.
SELECT {columns:s}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM subscription_schedules
    WHERE account_id = $1 AND customer = wanted.customer AND status IN ('not_started', 'active')
    OFFSET 0
) AS s
ORDER BY s.id;

-- filter: customer
customer = ?

-- filter: statuses
status = ANY (?)

-- filter: subscription
? IN (subscription, released_subscription)

-- filter: test_clock
customer IN (SELECT customer FROM books WHERE account_id = $1 AND test_clock = ?)

-- filter: created_from
created >= ?

-- filter: created_before
created < ?
