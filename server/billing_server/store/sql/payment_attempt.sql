-- name: insert
-- New payment attempts.
INSERT INTO payment_attempts (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed payment attempts, whole.
UPDATE payment_attempts AS o SET {assignments}
FROM unnest($2::{row}[]) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The payment attempts with these ids.
SELECT {columns} FROM payment_attempts WHERE account_id = $1 AND id = ANY ($2);

-- name: list
-- A page of payment attempts, newest first.
SELECT {columns} FROM payment_attempts WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_unresolved
-- The attempts of some customers of which it is not known whether money moved.
SELECT {columns} FROM payment_attempts
WHERE account_id = $1 AND customer = ANY ($2) AND state IN ('started', 'unknown')
ORDER BY id;

-- name: load_of_invoices
-- All attempts of some invoices.
SELECT {columns} FROM payment_attempts WHERE account_id = $1 AND invoice = ANY ($2) ORDER BY invoice, number;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
