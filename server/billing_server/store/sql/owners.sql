-- name: of_types
-- The customers of some objects, by type and id.
SELECT 'subscription' AS type, o.id, o.customer
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM subscriptions WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'invoice', o.id, o.customer
FROM unnest($3::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM invoices WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'invoice_item', o.id, o.customer
FROM unnest($4::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM invoice_items WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'payment_method', o.id, o.customer
FROM unnest($5::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM payment_methods WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'credit_note', o.id, o.customer
FROM unnest($6::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM credit_notes WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'customer', o.customer, o.customer
FROM unnest($7::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM books WHERE account_id = $1 AND customer = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'subscription_schedule', o.id, o.customer
FROM unnest($8::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM subscription_schedules WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o
UNION ALL
SELECT 'automation_run', o.id, o.customer
FROM unnest($9::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM automation_runs WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;
