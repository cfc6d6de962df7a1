-- name: insert
-- New refunds.
INSERT INTO refunds (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed refunds, whole.
UPDATE refunds AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The refunds with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM refunds WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of refunds, newest first.
SELECT {columns} FROM refunds WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_unresolved
-- The refunds of some customers of which it is not known whether money moved.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM refunds
    WHERE account_id = $1 AND customer = wanted.customer AND status IN ('pending', 'unknown')
    OFFSET 0
) AS o
ORDER BY o.id;

-- name: load_of_invoices
-- All refunds of some invoices.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (invoice)
CROSS JOIN LATERAL (SELECT * FROM refunds WHERE account_id = $1 AND invoice = wanted.invoice OFFSET 0) AS o
ORDER BY o.id;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
