-- name: insert
-- New credit notes.
INSERT INTO credit_notes (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed credit notes, whole.
UPDATE credit_notes AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The credit notes with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM credit_notes WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of credit notes, newest first.
SELECT {columns} FROM credit_notes WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_of_invoices
-- All credit notes of some invoices.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (invoice)
CROSS JOIN LATERAL (SELECT * FROM credit_notes WHERE account_id = $1 AND invoice = wanted.invoice OFFSET 0) AS o
ORDER BY o.id;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
