-- name: insert
-- A new key, with the hash of its secret.
INSERT INTO api_keys (account_id, {columns}, secret_hash)
SELECT $1, {columns}, $3::bytea FROM unnest($2::{row}[]);

-- name: update
-- A changed or revoked key.
UPDATE api_keys AS o SET {assignments} FROM unnest($2::{row}[]) AS n WHERE o.account_id = $1 AND o.id = n.id;

-- name: find
-- The key that was presented, whatever its account: seen by its hash alone, under the setting app.key_hash.
SELECT account_id, {columns} FROM api_keys WHERE secret_hash = $1;

-- name: get
-- The API keys with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM api_keys WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of API keys, newest first.
SELECT {columns} FROM api_keys WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- filter: revoked
(revoked_at IS NOT NULL) = ?
