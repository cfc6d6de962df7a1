-- name: insert
-- New refunds.
INSERT INTO refunds (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed refunds, whole.
UPDATE refunds AS o SET {assignments}
FROM unnest($2::{row}[]) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The refunds with these ids.
SELECT {columns} FROM refunds WHERE account_id = $1 AND id = ANY ($2);

-- name: list
-- A page of refunds, newest first.
SELECT {columns} FROM refunds WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_unresolved
-- The refunds of some customers of which it is not known whether money moved.
SELECT {columns} FROM refunds
WHERE account_id = $1 AND customer = ANY ($2) AND status IN ('pending', 'unknown')
ORDER BY id;

-- name: load_of_invoices
-- All refunds of some invoices.
SELECT {columns} FROM refunds WHERE account_id = $1 AND invoice = ANY ($2) ORDER BY id;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
