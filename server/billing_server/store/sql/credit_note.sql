-- name: insert
-- New credit notes.
INSERT INTO credit_notes (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed credit notes, whole.
UPDATE credit_notes AS o SET {assignments}
FROM unnest($2::{row}[]) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The credit notes with these ids.
SELECT {columns} FROM credit_notes WHERE account_id = $1 AND id = ANY ($2);

-- name: list
-- A page of credit notes, newest first.
SELECT {columns} FROM credit_notes WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_of_invoices
-- All credit notes of some invoices.
SELECT {columns} FROM credit_notes WHERE account_id = $1 AND invoice = ANY ($2) ORDER BY id;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
