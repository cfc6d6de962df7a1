-- name: of_types
-- The customers of some objects, by type and id.
SELECT 'subscription' AS type, id, customer FROM subscriptions WHERE account_id = $1 AND id = ANY ($2)
UNION ALL
SELECT 'invoice', id, customer FROM invoices WHERE account_id = $1 AND id = ANY ($3)
UNION ALL
SELECT 'invoice_item', id, customer FROM invoice_items WHERE account_id = $1 AND id = ANY ($4)
UNION ALL
SELECT 'payment_method', id, customer FROM payment_methods WHERE account_id = $1 AND id = ANY ($5)
UNION ALL
SELECT 'credit_note', id, customer FROM credit_notes WHERE account_id = $1 AND id = ANY ($6)
UNION ALL
SELECT 'customer', customer, customer FROM books WHERE account_id = $1 AND customer = ANY ($7);
