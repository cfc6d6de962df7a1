-- name: begin
-- Lets an endpoint begin with the events that follow the next one of this transaction. The head is locked, so that
-- no other transaction comes between.
INSERT INTO webhook_cursors (account_id, endpoint, position)
SELECT $1, $2::text, position + 1 FROM event_heads WHERE account_id = $1 FOR UPDATE;

-- name: end
-- Lets an endpoint get nothing more; waits for who is making deliveries for it.
DELETE FROM webhook_cursors WHERE account_id = $1 AND endpoint = $2;

-- name: accounts
-- Accounts with enabled endpoints: seen under the setting app.sweep.
SELECT DISTINCT account_id FROM webhook_cursors ORDER BY account_id;

-- name: behind
-- Endpoints that have not come to the head of their log: seen across accounts, under the setting app.sweep.
SELECT c.account_id, c.endpoint
FROM webhook_cursors AS c
CROSS JOIN LATERAL (SELECT position FROM event_heads WHERE account_id = c.account_id OFFSET 0) AS h
WHERE c.position < h.position
ORDER BY c.account_id, c.endpoint;

-- name: lock
-- Some endpoints, locked, unless others make deliveries for them; with their filters, and how many deliveries are
-- pending, counted up to $3.
SELECT c.endpoint, c.position, c.failures, e.event_types,
    (
        SELECT count(*) FROM (
            SELECT FROM webhook_deliveries AS d
            WHERE d.account_id = $1 AND d.endpoint = c.endpoint AND d.due_at IS NOT NULL LIMIT $3
        ) AS counted
    ) AS pending
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT * FROM webhook_cursors WHERE account_id = $1 AND endpoint = wanted.id FOR UPDATE SKIP LOCKED
) AS c
CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints WHERE account_id = $1 AND id = c.endpoint OFFSET 0) AS e
ORDER BY c.endpoint;

-- name: advance
-- How far some locked endpoints have come.
UPDATE webhook_cursors AS o SET position = n.position
FROM (SELECT * FROM unnest($2::text[], $3::bigint[]) LIMIT cardinality($2)) AS n (endpoint, position)
WHERE o.account_id = $1 AND o.endpoint = n.endpoint;

-- name: events
-- What decides about the events after a position: their types, and whether they are for the log alone.
SELECT position, type, quiet FROM events WHERE account_id = $1 AND position > $2 ORDER BY position LIMIT $3;

-- name: payloads
-- The events at some positions.
SELECT e.position, e.payload
FROM unnest($2::bigint[]) AS wanted (position)
CROSS JOIN LATERAL (SELECT * FROM events WHERE account_id = $1 AND position = wanted.position OFFSET 0) AS e;

-- name: due
-- Endpoints with deliveries to try at a moment, sick ones only when it is time to sound them out: seen across
-- accounts, under the setting app.sweep.
SELECT c.account_id, c.endpoint, c.failures
FROM webhook_cursors AS c
WHERE (c.retry_at IS NULL OR c.retry_at <= $1) AND EXISTS (
    SELECT FROM webhook_deliveries AS d
    WHERE d.account_id = c.account_id AND d.endpoint = c.endpoint AND d.due_at IS NOT NULL AND d.due_at <= $1
)
ORDER BY c.failures, c.account_id, c.endpoint;

-- name: health
-- How an endpoint does: failures in a row, and when it is sounded out. No row: it is disabled.
SELECT failures, retry_at FROM webhook_cursors WHERE account_id = $1 AND endpoint = $2;

-- name: lock_health
-- The same, locked: whoever disables the endpoint waits, or is waited for.
SELECT failures, retry_at FROM webhook_cursors WHERE account_id = $1 AND endpoint = $2 FOR UPDATE;

-- name: sound_out
-- Takes the one try of a sick endpoint; others wait for the seconds of a lease.
UPDATE webhook_cursors SET retry_at = $3::bigint + $4::bigint
WHERE account_id = $1 AND endpoint = $2 AND retry_at <= $3
RETURNING endpoint;

-- name: set_health
-- How an endpoint does from now on.
UPDATE webhook_cursors SET failures = $3, retry_at = $4 WHERE account_id = $1 AND endpoint = $2;

-- name: backlog
-- Over all accounts, under the setting app.sweep: pending deliveries, seconds since the first of them was due,
-- events between the slowest endpoint that is well and its head, and how many endpoints are sick.
SELECT
    (SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL) AS pending,
    (SELECT coalesce(greatest($1::bigint - min(due_at), 0), 0) FROM webhook_deliveries WHERE due_at IS NOT NULL) AS late,
    (
        SELECT coalesce(max(h.position - c.position), 0) FROM webhook_cursors AS c
        CROSS JOIN LATERAL (SELECT position FROM event_heads WHERE account_id = c.account_id OFFSET 0) AS h
        WHERE c.retry_at IS NULL
    ) AS behind,
    (SELECT count(*) FROM webhook_cursors WHERE retry_at IS NOT NULL) AS sick;

-- name: now
-- Real time by the database's clock.
SELECT floor(extract(EPOCH FROM clock_timestamp()))::bigint;
