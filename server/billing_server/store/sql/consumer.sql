-- name: insert
-- New consumers.
INSERT INTO consumers (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: lock_head
-- Locks the head of the account's log, so that others who create consumers now are counted, or count these.
SELECT FROM event_heads WHERE account_id = $1 FOR UPDATE;

-- name: count
-- How many consumers the account has.
SELECT count(*) FROM consumers WHERE account_id = $1;

-- name: update
-- Changed consumers, whole.
UPDATE consumers AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: delete
-- A consumer, with all that is its own.
DELETE FROM consumers WHERE account_id = $1 AND id = $2;

-- name: get
-- The consumers with these names.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM consumers WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of consumers, newest first.
SELECT {columns} FROM consumers WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: lock
-- A consumer, locked: who shares its work, and how, is settled by one at a time.
SELECT {columns} FROM consumers WHERE account_id = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: renew
-- A connection lives for so many seconds more.
INSERT INTO consumer_connections AS o (account_id, consumer, id, lease_until)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
ON CONFLICT (account_id, consumer, id) DO UPDATE SET lease_until = excluded.lease_until;

-- name: bury
-- Forgets the connections whose lease is over.
DELETE FROM consumer_connections WHERE account_id = $1 AND consumer = $2 AND lease_until < clock_timestamp();

-- name: leave
-- Forgets a connection.
DELETE FROM consumer_connections WHERE account_id = $1 AND consumer = $2 AND id = $3;

-- name: disband
-- Forgets all connections of a consumer; those that live join anew.
DELETE FROM consumer_connections WHERE account_id = $1 AND consumer = $2;

-- name: connections
-- How many connections a consumer has, and real time by the database's clock.
SELECT count(*), floor(extract(EPOCH FROM clock_timestamp()))::bigint
FROM consumer_connections WHERE account_id = $1 AND consumer = $2;

-- name: progress
-- How far some consumers have come: floor, unsettled and parked events, living connections, totals.
SELECT wanted.id, s.floor, s.pending, p.parked, c.connections, s.delivered, s.redelivered, s.acknowledged
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT min(floor) AS floor, sum(jsonb_array_length(pending))::bigint AS pending,
        sum(delivered)::bigint AS delivered, sum(redelivered)::bigint AS redelivered,
        sum(acknowledged)::bigint AS acknowledged
    FROM consumer_shards WHERE account_id = $1 AND consumer = wanted.id OFFSET 0
) AS s
CROSS JOIN LATERAL (
    SELECT count(*) AS parked FROM parked_events WHERE account_id = $1 AND consumer = wanted.id OFFSET 0
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS connections FROM consumer_connections
    WHERE account_id = $1 AND consumer = wanted.id AND lease_until >= clock_timestamp() OFFSET 0
) AS c;
