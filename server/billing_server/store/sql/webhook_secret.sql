-- name: insert
-- The next secret of an endpoint; its number.
INSERT INTO webhook_secrets (account_id, endpoint, number, secret)
SELECT $1, $2::text, coalesce(max(number), 0) + 1, $3::bytea
FROM webhook_secrets WHERE account_id = $1 AND endpoint = $2
RETURNING number;

-- name: get
-- One secret of an endpoint, unless it has ended.
SELECT secret FROM webhook_secrets
WHERE account_id = $1 AND endpoint = $2 AND number = $3 AND (expires_at IS NULL OR expires_at > $4);

-- name: valid
-- The secrets of an endpoint that sign at a moment, the current one first.
SELECT secret FROM webhook_secrets
WHERE account_id = $1 AND endpoint = $2 AND (expires_at IS NULL OR expires_at > $3)
ORDER BY number DESC;

-- name: expire
-- Lets all secrets of an endpoint end at a moment, unless they end sooner.
UPDATE webhook_secrets SET expires_at = least(coalesce(expires_at, $3::bigint), $3::bigint)
WHERE account_id = $1 AND endpoint = $2;

-- name: drop_expired
-- Drops the secrets that have ended, but the latest: numbers go on from it.
DELETE FROM webhook_secrets AS o
WHERE o.account_id = $1 AND o.endpoint = $2 AND o.expires_at <= $3
    AND o.number < (SELECT max(number) FROM webhook_secrets WHERE account_id = $1 AND endpoint = $2);

-- name: delete
-- All secrets of a deleted endpoint.
DELETE FROM webhook_secrets WHERE account_id = $1 AND endpoint = $2;
