-- name: insert
-- New invoices.
INSERT INTO invoices (account_id, {stored})
SELECT $1, {stored} FROM unnest($2::{row}[]);

-- name: update
-- Changed invoices, whole.
UPDATE invoices AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.id = n.id;

-- name: get
-- The invoices with these ids.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM invoices WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS o;

-- name: list
-- A page of invoices, newest first.
SELECT {columns} FROM invoices WHERE account_id = $1 {filters} ORDER BY created DESC, id DESC LIMIT $2;

-- name: load_due
-- What wakes in some books, each until a moment of its own: among the unsettled ones, which are few.
SELECT {columns:i}
FROM unnest($2::text[], $3::bigint[]) AS wanted (customer, until)
CROSS JOIN LATERAL (
    SELECT * FROM invoices
    WHERE account_id = $1 AND customer = wanted.customer AND unsettled AND wake_at <= wanted.until
    OFFSET 0
) AS i
ORDER BY i.id;

-- name: load_unsettled
-- The draft and open invoices of some subscriptions, each named with its customer, without those that are loaded
-- already: most often the very one that is due or paid. Their ids are hashed once, not searched for each invoice.
SELECT {columns:i}
FROM unnest($2::text[], $3::text[]) AS wanted (customer, subscription)
CROSS JOIN LATERAL (
    SELECT * FROM invoices
    WHERE account_id = $1 AND customer = wanted.customer AND subscription = wanted.subscription AND unsettled
        AND id NOT IN (SELECT unnest($4::text[]))
    OFFSET 0
) AS i
ORDER BY i.id;

-- name: load_history
-- The newest paid or uncollectible invoice of some subscriptions, each named with its customer.
SELECT {columns:i}
FROM unnest($2::text[], $3::text[]) AS wanted (customer, subscription)
CROSS JOIN LATERAL (
    SELECT * FROM invoices AS o
    WHERE o.account_id = $1 AND o.customer = wanted.customer AND o.subscription = wanted.subscription
        AND o.status IN ('paid', 'uncollectible')
    ORDER BY o.created DESC, o.id DESC
    LIMIT 1
) AS i;

-- name: delete
-- Drafts that were taken out of their books.
DELETE FROM invoices AS o
USING (SELECT * FROM unnest($2::text[]) LIMIT cardinality($2)) AS n (id)
WHERE o.account_id = $1 AND o.id = n.id AND o.status = 'draft';

-- filter: customer
customer = ?

-- filter: subscription
subscription = ?

-- filter: status
status = ?

-- filter: collection_method
collection_method = ?

-- filter: overdue_at
(status = 'open' AND due_date IS NOT NULL AND due_date <= coalesce(
    (SELECT c.frozen_time FROM test_clocks AS c WHERE c.account_id = $1 AND c.id = invoices.test_clock), ?))

-- filter: not_overdue_at
NOT (status = 'open' AND due_date IS NOT NULL AND due_date <= coalesce(
    (SELECT c.frozen_time FROM test_clocks AS c WHERE c.account_id = $1 AND c.id = invoices.test_clock), ?))

-- filter: due_from
due_date >= ?

-- filter: due_before
due_date < ?

-- filter: created_from
created >= ?

-- filter: created_before
created < ?

-- filter: has_payment_intent
(payment_intent IS NOT NULL) = ?

-- filter: payment_intent_status
payment_intent ->> 'status' = ?

-- filter: ids
id = ANY (?)
