-- name: insert
-- Events that were tried too often, parked now.
INSERT INTO parked_events AS o (account_id, consumer, {columns}, parked_at)
SELECT $1, $2, {columns:n}, floor(extract(EPOCH FROM clock_timestamp()))::bigint
FROM unnest($3::{row}[]) AS n
ON CONFLICT (account_id, consumer, position) DO UPDATE SET
    tries = excluded.tries, reason = excluded.reason, parked_at = excluded.parked_at, retrying = false;

-- name: count
-- How many events of a consumer are parked.
SELECT count(*) FROM parked_events WHERE account_id = $1 AND consumer = $2;

-- name: list
-- Parked events before a position, the latest in the log first.
SELECT {columns}, parked_at, retrying FROM parked_events
WHERE account_id = $1 AND consumer = $2 AND position < $3
ORDER BY position DESC LIMIT $4;

-- name: retry
-- Asks for parked events (NULL: all) to be tried again, as far as the log still has them.
WITH wanted AS MATERIALIZED (
    SELECT p.position, e.position IS NOT NULL AS kept
    FROM parked_events AS p
    LEFT JOIN LATERAL (
        SELECT position FROM events WHERE account_id = $1 AND position = p.position OFFSET 0
    ) AS e ON true
    WHERE p.account_id = $1 AND p.consumer = $2 AND ($3::bigint[] IS NULL OR p.position = ANY ($3))
), marked AS (
    UPDATE parked_events AS o SET retrying = true
    FROM wanted
    WHERE o.account_id = $1 AND o.consumer = $2 AND o.position = wanted.position AND wanted.kept
    RETURNING 1
)
SELECT (SELECT count(*) FROM marked), (SELECT count(*) FROM wanted WHERE NOT kept);

-- name: drop
-- Forgets parked events (NULL: all).
DELETE FROM parked_events
WHERE account_id = $1 AND consumer = $2 AND ($3::bigint[] IS NULL OR position = ANY ($3));
