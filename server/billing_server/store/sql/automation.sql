-- name: save
-- New and changed automations, at the version of the account's pages at which caches find them.
INSERT INTO automations AS o (account_id, pages_version, {columns})
SELECT $1, $3, {columns} FROM unnest($2::{row}[])
ON CONFLICT (account_id, id) DO UPDATE SET pages_version = excluded.pages_version, {excluded};

-- name: load_changed
-- What changed after a version of the account's pages.
SELECT {columns} FROM automations WHERE account_id = $1 AND pages_version > $2 ORDER BY id;

-- name: get
-- The automations with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM automations WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of automations, newest first.
SELECT {columns} FROM automations WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- filter: trigger
trigger = ?

-- filter: enabled
enabled = ?

-- filter: deleted
deleted = ?
