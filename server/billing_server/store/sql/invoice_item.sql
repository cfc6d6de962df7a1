-- name: insert
-- New invoice items.
INSERT INTO invoice_items (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed invoice items, whole.
UPDATE invoice_items AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The invoice items with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM invoice_items WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of invoice items, newest first.
SELECT {columns} FROM invoice_items WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_pending
-- What waits for the next invoice of some customers.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM invoice_items WHERE account_id = $1 AND customer = wanted.customer AND invoice IS NULL OFFSET 0
) AS o
ORDER BY o.id;

-- name: load_of_invoices
-- The items that stand on some invoices.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (invoice)
CROSS JOIN LATERAL (SELECT * FROM invoice_items WHERE account_id = $1 AND invoice = wanted.invoice OFFSET 0) AS o
ORDER BY o.id;

-- name: delete
-- Items that were taken out of their books.
DELETE FROM invoice_items AS o
USING (SELECT * FROM unnest($2::text[]) LIMIT cardinality($2)) AS n (id)
WHERE o.account_id = $1 AND o.id = n.id;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?

-- filter: pending
(invoice IS NULL) = ?
