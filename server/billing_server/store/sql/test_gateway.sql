-- name: remember_charges
-- Records what the test gateway did for some charges. A key that is known keeps its first outcome, and is counted as
-- asked once more; the first outcome is what comes back.
INSERT INTO test_gateway_charges AS o (account_id, {columns})
SELECT $1, {columns} FROM unnest($2::{row}[])
ON CONFLICT (account_id, key) DO UPDATE SET asked = o.asked + 1
RETURNING asked, {columns};

-- name: remember_refunds
-- The same for refunds.
INSERT INTO test_gateway_refunds AS o (account_id, {columns})
SELECT $1, {columns} FROM unnest($2::{row}[])
ON CONFLICT (account_id, key) DO UPDATE SET asked = o.asked + 1
RETURNING asked, {columns};

-- name: find_charges
-- What the test gateway did for some keys.
SELECT o.asked, {columns:o}
FROM unnest($2::text[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT * FROM test_gateway_charges WHERE account_id = $1 AND key = wanted.key OFFSET 0
) AS o;

-- name: find_refunds
-- The same for refunds.
SELECT o.asked, {columns:o}
FROM unnest($2::text[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT * FROM test_gateway_refunds WHERE account_id = $1 AND key = wanted.key OFFSET 0
) AS o;
