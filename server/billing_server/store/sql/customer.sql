-- name: insert
-- New customers.
INSERT INTO customers (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed customers, whole.
UPDATE customers AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The customers with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM customers WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of customers, newest first.
SELECT {columns} FROM customers WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- filter: email
email = ?

-- filter: test_clock
id IN (SELECT customer FROM books WHERE account_id = $1 AND test_clock = ?)

-- filter: deleted
deleted = ?

-- filter: created_from
created >= ?

-- filter: created_before
created < ?
