-- name: insert
-- The shards of a new consumer, all at one position.
INSERT INTO consumer_shards (account_id, consumer, shard, position, floor, pending)
SELECT $1, $2, shard, $3, $3, '[]' FROM generate_series(0, $4::bigint - 1) AS shard;

-- name: save
-- How far shards have come, but for those that the connection does not own any more; counters are added up.
UPDATE consumer_shards AS o SET
    position = n.position, floor = n.floor, pending = n.pending, delivered = o.delivered + n.delivered,
    redelivered = o.redelivered + n.redelivered, acknowledged = o.acknowledged + n.acknowledged
FROM (SELECT * FROM unnest($4::{row}[]) LIMIT cardinality($4)) AS n
WHERE o.account_id = $1 AND o.consumer = $2 AND o.shard = n.shard AND o.owner = $3
RETURNING o.shard;

-- name: owned
-- The shards that a connection owns.
SELECT shard FROM consumer_shards WHERE account_id = $1 AND consumer = $2 AND owner = $3;

-- name: release
-- Gives away some of the shards of a connection.
UPDATE consumer_shards SET owner = NULL
WHERE account_id = $1 AND consumer = $2 AND owner = $3 AND shard = ANY ($4);

-- name: release_all
-- Gives away all shards of a connection.
UPDATE consumer_shards SET owner = NULL WHERE account_id = $1 AND consumer = $2 AND owner = $3;

-- name: claim
-- Takes up to so many shards that no living connection owns, those first that are furthest behind. The consumer is
-- locked, so nobody else takes any meanwhile.
WITH orphans AS MATERIALIZED (
    SELECT shard FROM consumer_shards AS s
    WHERE account_id = $1 AND consumer = $2 AND (
        owner IS NULL OR NOT EXISTS (
            SELECT FROM consumer_connections AS c
            WHERE c.account_id = $1 AND c.consumer = $2 AND c.id = s.owner
        )
    )
    ORDER BY floor, shard LIMIT $4
    FOR UPDATE
)
UPDATE consumer_shards AS o SET owner = $3
FROM (SELECT * FROM orphans LIMIT $4) AS n
WHERE o.account_id = $1 AND o.consumer = $2 AND o.shard = n.shard
RETURNING {columns:o};

-- name: seek
-- Moves all shards to a position and takes them from whoever has them.
UPDATE consumer_shards SET owner = NULL, position = $3, floor = $3, pending = '[]'
WHERE account_id = $1 AND consumer = $2;

-- name: adopt
-- Puts parked events that are to be tried again back among the pending ones of their shards, as far as the connection
-- owns these.
WITH taken AS MATERIALIZED (
    SELECT p.position, p.shard FROM parked_events AS p
    JOIN consumer_shards AS s
        ON s.account_id = p.account_id AND s.consumer = p.consumer AND s.shard = p.shard AND s.owner = $3
    WHERE p.account_id = $1 AND p.consumer = $2 AND p.retrying
    ORDER BY p.position LIMIT $4
    FOR UPDATE OF p
), removed AS (
    DELETE FROM parked_events AS p USING taken
    WHERE p.account_id = $1 AND p.consumer = $2 AND p.position = taken.position
    RETURNING p.position, p.shard
), moved AS (
    SELECT shard, min(position) - 1 AS floor, jsonb_agg(jsonb_build_array(position, 0, NULL)) AS pending
    FROM removed GROUP BY shard
), kept AS (
    UPDATE consumer_shards AS o SET floor = least(o.floor, moved.floor), pending = o.pending || moved.pending
    FROM moved
    WHERE o.account_id = $1 AND o.consumer = $2 AND o.shard = moved.shard
)
SELECT shard, position FROM removed;
