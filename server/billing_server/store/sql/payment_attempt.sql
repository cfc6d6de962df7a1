-- name: insert
-- New payment attempts.
INSERT INTO payment_attempts (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed payment attempts, whole.
UPDATE payment_attempts AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The payment attempts with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM payment_attempts WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of payment attempts, newest first.
SELECT {columns} FROM payment_attempts WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_unresolved
-- The attempts of some customers of which it is not known whether money moved.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM payment_attempts
    WHERE account_id = $1 AND customer = wanted.customer AND state IN ('started', 'unknown')
    OFFSET 0
) AS o
ORDER BY o.id;

-- name: load_of_invoices
-- All attempts of some invoices.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (invoice)
CROSS JOIN LATERAL (SELECT * FROM payment_attempts WHERE account_id = $1 AND invoice = wanted.invoice OFFSET 0) AS o
ORDER BY o.invoice, o.number;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
