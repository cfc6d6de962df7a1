-- name: insert
-- New endpoints.
INSERT INTO webhook_endpoints (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed endpoints, whole.
UPDATE webhook_endpoints AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The endpoints with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: lock
-- An endpoint, locked against being changed, disabled or deleted by others.
SELECT {columns} FROM webhook_endpoints WHERE account_id = $1 AND id = $2 FOR UPDATE;

-- name: list
-- A page of endpoints, newest first.
SELECT {columns} FROM webhook_endpoints WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: count
-- How many endpoints the account has.
SELECT count(*) FROM webhook_endpoints WHERE account_id = $1;

-- name: delete
-- An endpoint for good.
DELETE FROM webhook_endpoints WHERE account_id = $1 AND id = $2;

-- filter: status
status = ?
