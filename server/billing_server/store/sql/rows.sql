-- name: update_columns
-- Some columns of many rows of a table, the same ones of each row.
UPDATE {table} AS o SET {assignments}
FROM (SELECT * FROM unnest({arrays}) LIMIT cardinality($2)) AS n ({columns})
WHERE o.account_id = $1 AND o.id = n.id;
