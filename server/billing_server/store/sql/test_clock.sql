-- name: insert
-- New test clocks.
INSERT INTO test_clocks (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed test clocks, whole.
UPDATE test_clocks AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The test clocks with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM test_clocks WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of test clocks, newest first.
SELECT {columns} FROM test_clocks WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: lock
-- A test clock, locked against being moved or deleted by others.
SELECT {columns} FROM test_clocks WHERE account_id = $1 AND id = $2 FOR UPDATE;

-- name: lock_books
-- The customers of a test clock, their books locked.
SELECT customer FROM books WHERE account_id = $1 AND test_clock = $2 ORDER BY customer FOR UPDATE;

-- name: advancing
-- Clocks that are on their way, of all accounts: seen under the setting app.sweep.
SELECT account_id, id FROM test_clocks WHERE status = 'advancing' ORDER BY account_id, id;

-- name: over
-- Clocks that are not on their way, and whose lifetime is over.
SELECT id FROM test_clocks WHERE account_id = $1 AND deletes_after <= $2 AND status <> 'advancing' ORDER BY id LIMIT $3;

-- name: delete
-- A test clock whose customers are gone.
DELETE FROM test_clocks WHERE account_id = $1 AND id = $2;

-- name: delete_meter_events
-- The meter events of a deleted clock's customers.
DELETE FROM meter_events WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_meter_tallies
-- The tallies of a deleted clock's customers.
DELETE FROM meter_tallies WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_messages
-- The messages to a deleted clock's customers, also those that wait.
DELETE FROM messages WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_automation_runs
-- The runs of a deleted clock's customers.
DELETE FROM automation_runs WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_payment_attempts
-- The payment attempts of a deleted clock's customers.
DELETE FROM payment_attempts WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_refunds
-- The refunds of a deleted clock's customers.
DELETE FROM refunds WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_credit_notes
-- The credit notes of a deleted clock's customers.
DELETE FROM credit_notes WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_balance_transactions
-- The balance transactions of a deleted clock's customers.
DELETE FROM balance_transactions WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_invoice_items
-- The invoice items of a deleted clock's customers.
DELETE FROM invoice_items WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_invoices
-- The invoices of a deleted clock's customers.
DELETE FROM invoices WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_subscriptions
-- The subscriptions of a deleted clock's customers.
DELETE FROM subscriptions WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_subscription_schedules
-- The schedules of a deleted clock's customers.
DELETE FROM subscription_schedules WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_payment_methods
-- The payment methods of a deleted clock's customers.
DELETE FROM payment_methods WHERE account_id = $1 AND customer = ANY ($2);

-- name: delete_customers
-- The customers of a deleted clock.
DELETE FROM customers WHERE account_id = $1 AND id = ANY ($2);

-- name: delete_books
-- The books of a deleted clock's customers.
DELETE FROM books WHERE account_id = $1 AND customer = ANY ($2);
