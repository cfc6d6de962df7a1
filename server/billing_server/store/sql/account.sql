-- name: opening
-- What a transaction must know first: real time by the database's clock, its own id, and the version of the
-- account's pages. Sent after the books are locked, so that time never runs backwards for a book.
SELECT
    floor(extract(EPOCH FROM clock_timestamp()))::bigint AS now,
    pg_current_xact_id()::text::bigint AS transaction,
    (SELECT pages_version FROM accounts WHERE account_id = $1) AS pages_version;

-- name: load
-- The account, after the version of its pages.
SELECT pages_version, {columns} FROM accounts WHERE account_id = $1;

-- name: lock
-- The same, locked against other changes of the account's pages.
SELECT pages_version, {columns} FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE;

-- name: insert
-- A new account.
INSERT INTO accounts (account_id, {columns})
SELECT $1, {columns} FROM unnest($2::{row}[]) ON CONFLICT DO NOTHING;

-- name: insert_head
-- The beginning of a new account's events.
INSERT INTO event_heads (account_id, position) VALUES ($1, 0);

-- name: update
-- Changed settings.
UPDATE accounts AS o SET {assignments} FROM unnest($2::{row}[]) AS n WHERE o.account_id = $1 AND o.id = n.id;

-- name: next_pages_version
-- Tells all caches that the account's pages have changed.
UPDATE accounts SET pages_version = pages_version + 1 WHERE account_id = $1 RETURNING pages_version;

-- name: all
-- The ids of all accounts: seen across accounts, under the setting app.sweep.
SELECT account_id FROM accounts ORDER BY account_id;

-- name: status_of_transaction
-- What became of a transaction: committed, aborted, in progress, or NULL when it is long ago.
SELECT pg_xact_status($1::text::xid8);

-- name: notify
-- Wakes whoever listens for new events.
SELECT pg_notify('billing_events', $1);
