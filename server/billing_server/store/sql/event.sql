-- name: append
-- Takes the account's next positions and writes the events at them. The head's row stays locked until the
-- transaction ends, so positions are in the order of commits and without gaps.
WITH head AS (
    UPDATE event_heads SET position = position + $2 WHERE account_id = $1 RETURNING position
), appended AS (
    INSERT INTO events (account_id, position, type, customer, object_id, created, created_real, payload, quiet)
    SELECT $1, head.position - $2 + e.ordinality, e.type, e.customer, e.object_id, e.created, $4, e.payload, e.quiet
    FROM head, unnest($3::event_row_2[]) WITH ORDINALITY AS e
)
SELECT position FROM head;

-- name: head
-- The position of the account's last event; 0 before the first.
SELECT position FROM event_heads WHERE account_id = $1;

-- name: oldest
-- The position of the oldest event that is kept.
SELECT position FROM events WHERE account_id = $1 ORDER BY position LIMIT 1;

-- name: kept
-- The position of the account's last event, and that of the oldest that is kept.
SELECT
    (SELECT position FROM event_heads WHERE account_id = $1),
    (SELECT position FROM events WHERE account_id = $1 ORDER BY position LIMIT 1);

-- name: read
-- Events after a position, in order.
SELECT position, type, customer, object_id, created, payload FROM events
WHERE account_id = $1 AND position > $3 {filters}
ORDER BY position LIMIT $2;

-- name: read_payloads
-- The head, without a payload, and the payloads of events after a position, in the order of their positions and of one
-- snapshot. Rows, because to put them together as one array took PostgreSQL twice as long as to read them.
SELECT position, NULL::bytea AS payload FROM event_heads WHERE account_id = $1
UNION ALL
(SELECT position, payload FROM events WHERE account_id = $1 AND position > $2 ORDER BY position LIMIT $3)
ORDER BY position;

-- name: list
-- Events before a position, newest first.
SELECT position, type, customer, object_id, created, payload FROM events
WHERE account_id = $1 AND position < $3 {filters}
ORDER BY position DESC LIMIT $2;

-- name: read_of_subjects
-- Events of some subjects after a position, in order: the first ones of each, and of these the first.
SELECT e.position, e.type, e.customer, e.object_id, e.created, e.payload
FROM unnest($4::text[]) AS wanted (subject)
CROSS JOIN LATERAL (
    SELECT position, type, customer, object_id, created, payload FROM events
    WHERE account_id = $1 AND CASE WHEN customer IS NULL THEN object_id ELSE customer END = wanted.subject
        AND position > $3 {filters}
    ORDER BY position LIMIT $2
) AS e
ORDER BY e.position LIMIT $2;

-- name: list_of_subjects
-- Events of some subjects before a position, newest first.
SELECT e.position, e.type, e.customer, e.object_id, e.created, e.payload
FROM unnest($4::text[]) AS wanted (subject)
CROSS JOIN LATERAL (
    SELECT position, type, customer, object_id, created, payload FROM events
    WHERE account_id = $1 AND CASE WHEN customer IS NULL THEN object_id ELSE customer END = wanted.subject
        AND position < $3 {filters}
    ORDER BY position DESC LIMIT $2
) AS e
ORDER BY e.position DESC LIMIT $2;

-- name: get
-- One event.
SELECT position, type, customer, object_id, created, payload FROM events WHERE account_id = $1 AND position = $2;

-- name: at_positions
-- The events at some positions, in order, as far as they are kept.
SELECT e.position, e.type, e.customer, e.object_id, e.created, e.payload
FROM unnest($2::bigint[]) AS wanted (position)
CROSS JOIN LATERAL (SELECT * FROM events WHERE account_id = $1 AND position = wanted.position OFFSET 0) AS e
ORDER BY e.position;

-- name: purge
-- Drops the oldest events that happened before a moment of real time, a slice at a time. Stops at the first
-- event that is younger, so that what is kept has no gaps.
DELETE FROM events WHERE account_id = $1 AND position <= (
    SELECT max(o.position) FROM (
        SELECT position, bool_and(created_real < $2) OVER (ORDER BY position) AS old
        FROM events WHERE account_id = $1 ORDER BY position LIMIT $3
    ) AS o WHERE o.old
);

-- filter: until
position <= ?

-- filter: down_to
position > ?

-- filter: types
type = ANY (?)

-- filter: type_patterns
type LIKE ANY (?)

-- filter: object_ids
object_id = ANY (?)

-- filter: shards
get_byte(sha256(convert_to(CASE WHEN customer IS NULL THEN object_id ELSE customer END, 'UTF8')), 0) % 32 = ANY (?)

-- filter: created_from
created >= ?

-- filter: created_before
created < ?
