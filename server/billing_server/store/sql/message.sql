-- name: insert
-- New messages.
INSERT INTO messages (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: get
-- The messages with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM messages WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of messages, newest first.
SELECT {columns} FROM messages WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: accounts_with_due
-- Accounts with messages that are due by the database's clock: seen across accounts, under the setting app.sweep.
SELECT a.account_id FROM accounts AS a
WHERE EXISTS (
    SELECT FROM messages AS m
    WHERE m.account_id = a.account_id AND m.due_at IS NOT NULL
        AND m.due_at <= floor(extract(EPOCH FROM clock_timestamp()))::bigint
);

-- name: claim
-- Takes due messages, longest due first, for the seconds of a lease; skips those that others take. Who claims and
-- is never heard of again has perhaps sent them, so they are due again when the lease is over. Materialized, because
-- a subquery that takes its rows while it is read might be read once for each row, and take too many.
WITH taken AS MATERIALIZED (
    SELECT id FROM messages
    WHERE account_id = $1 AND due_at IS NOT NULL AND due_at <= floor(extract(EPOCH FROM clock_timestamp()))::bigint
    ORDER BY due_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE messages AS o SET
    due_at = floor(extract(EPOCH FROM clock_timestamp()))::bigint + $3::bigint, attempts = o.attempts + 1
FROM (SELECT * FROM taken LIMIT $2) AS n
WHERE o.account_id = $1 AND o.id = n.id
RETURNING {columns:o};

-- name: settle
-- What became of claimed messages, but for those that somebody else has claimed since.
UPDATE messages AS o SET
    state = CASE WHEN n.wait IS NOT NULL THEN 'due' WHEN n.error IS NULL THEN 'sent' ELSE 'failed' END,
    due_at = floor(extract(EPOCH FROM clock_timestamp()))::bigint + n.wait,
    settled_at = CASE WHEN n.wait IS NULL THEN floor(extract(EPOCH FROM clock_timestamp()))::bigint END,
    error = n.error
FROM (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) LIMIT cardinality($2)
) AS n (id, attempts, error, wait)
WHERE o.account_id = $1 AND o.id = n.id AND o.attempts = n.attempts AND o.state = 'due';

-- name: purge
-- Drops messages that were settled before a moment of real time, a slice at a time.
DELETE FROM messages WHERE account_id = $1 AND id IN (
    SELECT id FROM messages WHERE account_id = $1 AND settled_at IS NOT NULL AND settled_at < $2
    ORDER BY settled_at LIMIT $3
);

-- filter: customer
customer = ?

-- filter: kind
kind = ?

-- filter: state
state = ?
