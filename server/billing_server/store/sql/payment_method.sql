-- name: insert
-- New payment methods.
INSERT INTO payment_methods (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed payment methods, whole.
UPDATE payment_methods AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The payment methods with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM payment_methods WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of payment methods, newest first.
SELECT {columns} FROM payment_methods WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_attached
-- The payment methods that some customers can pay with.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM payment_methods
    WHERE account_id = $1 AND customer = wanted.customer AND detached_at IS NULL
    OFFSET 0
) AS o
ORDER BY o.id;

-- filter: customer
customer = ?

-- filter: attached
(detached_at IS NULL) = ?
