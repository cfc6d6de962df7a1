-- name: insert
-- New payment methods.
INSERT INTO payment_methods (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed payment methods, whole.
UPDATE payment_methods AS o SET {assignments}
FROM unnest($2::{row}[]) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The payment methods with these ids.
SELECT {columns} FROM payment_methods WHERE account_id = $1 AND id = ANY ($2);

-- name: list
-- A page of payment methods, newest first.
SELECT {columns} FROM payment_methods WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_attached
-- The payment methods that some customers can pay with.
SELECT {columns} FROM payment_methods
WHERE account_id = $1 AND customer = ANY ($2) AND detached_at IS NULL
ORDER BY id;

-- filter: customer
customer = ?

-- filter: attached
(detached_at IS NULL) = ?
