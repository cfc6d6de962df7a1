-- name: find
-- What is known of some keys.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (key)
CROSS JOIN LATERAL (SELECT * FROM idempotency_keys WHERE account_id = $1 AND key = wanted.key OFFSET 0) AS o;

-- name: insert
-- New keys. A key that a concurrent transaction wrote first fails the transaction, which finds it on its second try.
INSERT INTO idempotency_keys (account_id, {columns}) SELECT $1, {columns} FROM unnest($2::{row}[]);

-- name: update
-- Answers of commands that were still under way when their keys were written.
UPDATE idempotency_keys AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.key = n.key;

-- name: purge
-- Drops keys that are older than a moment.
DELETE FROM idempotency_keys WHERE account_id = $1 AND created < $2;
