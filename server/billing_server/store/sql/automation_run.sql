-- name: insert
-- New runs.
INSERT INTO automation_runs (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed runs, whole.
UPDATE automation_runs AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The runs with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM automation_runs WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of runs, newest first.
SELECT {columns} FROM automation_runs WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_live
-- All runs of some customers that have not ended.
SELECT {columns:r}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM automation_runs
    WHERE account_id = $1 AND customer = wanted.customer AND status = 'running'
    OFFSET 0
) AS r
ORDER BY r.id;

-- filter: automation
automation = ?

-- filter: customer
customer = ?

-- filter: invoice
invoice = ?

-- filter: subscription
subscription = ?

-- filter: status
status = ?

-- filter: test_clock
customer IN (SELECT customer FROM books WHERE account_id = $1 AND test_clock = ?)
