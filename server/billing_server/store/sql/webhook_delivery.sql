-- name: insert
-- New deliveries.
INSERT INTO webhook_deliveries (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Deliveries that were asked for again, whole.
UPDATE webhook_deliveries AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The deliveries with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM webhook_deliveries WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: lock
-- A delivery, locked.
SELECT {columns} FROM webhook_deliveries WHERE account_id = $1 AND id = $2 FOR UPDATE;

-- name: list
-- A page of deliveries, newest first.
SELECT {columns} FROM webhook_deliveries WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: claim
-- Takes deliveries of an endpoint that are due at a moment, longest due first, for the seconds of a lease; skips those
-- that others take. Who claims and is never heard of again has perhaps sent them, so they are due again when the
-- lease is over. Materialized, because a subquery that takes its rows while it is read might take too many.
WITH taken AS MATERIALIZED (
    SELECT id FROM webhook_deliveries
    WHERE account_id = $1 AND endpoint = $2 AND due_at IS NOT NULL AND due_at <= $4
    ORDER BY due_at LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries AS o SET due_at = $4::bigint + $5::bigint, tried_at = $4, attempts = o.attempts + 1
FROM (SELECT * FROM taken LIMIT $3) AS n
WHERE o.account_id = $1 AND o.id = n.id
RETURNING {columns:o};

-- name: settle
-- What became of claimed deliveries at a moment, but for those that somebody else has claimed, canceled or asked for
-- again since.
UPDATE webhook_deliveries AS o SET
    state = CASE WHEN n.wait IS NOT NULL THEN 'pending' WHEN n.error IS NULL THEN 'delivered' ELSE 'failed' END,
    due_at = $7::bigint + n.wait,
    settled_at = CASE WHEN n.wait IS NULL THEN $7::bigint END,
    response_status = n.response_status,
    error = n.error
FROM (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[]) LIMIT cardinality($2)
) AS n (id, attempts, response_status, error, wait)
WHERE o.account_id = $1 AND o.id = n.id AND o.attempts = n.attempts AND o.state = 'pending';

-- name: cancel
-- The pending deliveries of an endpoint that is disabled or deleted.
UPDATE webhook_deliveries SET state = 'canceled', due_at = NULL, settled_at = $3::bigint
WHERE account_id = $1 AND endpoint = $2 AND due_at IS NOT NULL;

-- name: purge
-- Drops deliveries that were settled before a moment, a slice at a time.
DELETE FROM webhook_deliveries WHERE account_id = $1 AND id IN (
    SELECT id FROM webhook_deliveries WHERE account_id = $1 AND settled_at IS NOT NULL AND settled_at < $2
    ORDER BY settled_at LIMIT $3
);

-- filter: endpoint
endpoint = ?

-- filter: event
event = ?

-- filter: state
state = ?
