-- name: insert
-- New balance transactions.
INSERT INTO balance_transactions (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed balance transactions, whole.
UPDATE balance_transactions AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The balance transactions with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM balance_transactions WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of balance transactions, newest first.
SELECT {columns} FROM balance_transactions WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?
