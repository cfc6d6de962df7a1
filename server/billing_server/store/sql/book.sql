-- name: lock
-- Locks some books in the order in which they are named: always that of their ids, so that no two transactions
-- wait for each other.
SELECT {columns:o}
FROM unnest($2::text[]) AS wanted (customer)
CROSS JOIN LATERAL (
    SELECT * FROM books WHERE account_id = $1 AND customer = wanted.customer FOR UPDATE
) AS o;

-- name: claim_due
-- Finds and locks the books that are due by the wall clock, earliest first; skips those that others work on.
SELECT {columns} FROM books
WHERE account_id = $1 AND wake_at IS NOT NULL AND wake_at <= $2 AND NOT in_flight AND test_clock IS NULL
ORDER BY wake_at
LIMIT $3
FOR UPDATE SKIP LOCKED;

-- name: claim_due_on_clock
-- The same for the books of one test clock.
SELECT {columns} FROM books
WHERE account_id = $1 AND test_clock = $4 AND wake_at <= $2 AND NOT in_flight
ORDER BY wake_at
LIMIT $3
FOR UPDATE SKIP LOCKED;

-- name: claim_checks
-- Finds and locks the books with an unresolved charge or refund that must be looked at.
SELECT {columns} FROM books
WHERE account_id = $1 AND check_at IS NOT NULL AND check_at <= $2
ORDER BY check_at
LIMIT $3
FOR UPDATE SKIP LOCKED;

-- name: insert
-- The books of new customers.
INSERT INTO books (account_id, {columns}) SELECT $1, {columns} FROM unnest($2::{row}[]);

-- name: update
-- What changed in what must be known of a book before it is opened.
UPDATE books AS o SET {assignments}
FROM (SELECT * FROM unnest($2::{row}[]) LIMIT cardinality($2)) AS n
WHERE o.account_id = $1 AND o.customer = n.customer;

-- name: park
-- Postpones books that failed to advance, so that they hold up nobody. What is due in them stays due.
UPDATE books AS o SET wake_at = n.wake_at
FROM (SELECT * FROM unnest($2::text[], $3::bigint[]) LIMIT cardinality($2)) AS n (customer, wake_at)
WHERE o.account_id = $1 AND o.customer = n.customer;

-- name: next_wake
-- When the first of the objects wakes that were not loaded, for some books. The lists of what was loaded are
-- hashed once, not searched for each object.
SELECT d.customer, least(
    (
        SELECT s.wake_at FROM subscriptions AS s
        WHERE s.account_id = $1 AND s.customer = d.customer AND s.wake_at IS NOT NULL
            AND s.id NOT IN (SELECT unnest($3::text[]))
        ORDER BY s.wake_at LIMIT 1
    ),
    (
        SELECT min(i.wake_at) FROM invoices AS i
        WHERE i.account_id = $1 AND i.customer = d.customer AND i.unsettled
            AND i.id NOT IN (SELECT unnest($4::text[]))
    )
) AS wake_at
FROM unnest($2::text[]) AS d (customer);

-- name: clock_work
-- What is left to do for a test clock up to a moment: due books, charges under way, and when the next book wakes.
SELECT
    count(*) FILTER (WHERE wake_at <= $3) AS due,
    count(*) FILTER (WHERE in_flight) AS in_flight,
    min(wake_at) AS next_wake_at
FROM books WHERE account_id = $1 AND test_clock = $2;

-- name: accounts_with_due_books
-- Accounts with books that are due or must be checked, or with a test clock on its way: seen across accounts,
-- under the setting app.sweep. Without a moment, by the database's own clock.
SELECT a.account_id FROM accounts AS a
CROSS JOIN (SELECT coalesce($1::bigint, floor(extract(EPOCH FROM clock_timestamp()))::bigint) AS now) AS m
WHERE EXISTS (
        SELECT FROM books AS b
        WHERE b.account_id = a.account_id AND b.wake_at IS NOT NULL AND b.wake_at <= m.now
            AND NOT b.in_flight AND b.test_clock IS NULL
    )
    OR EXISTS (
        SELECT FROM books AS b
        WHERE b.account_id = a.account_id AND b.check_at IS NOT NULL AND b.check_at <= m.now
    );

-- name: due_backlog
-- How many books are due by the database's clock, and for how long the first of them has been, in seconds; and how
-- many have charges or refunds of which it is not known what became of them. Seen across accounts, under the setting
-- app.sweep.
SELECT
    coalesce(sum(d.books), 0)::bigint AS books,
    coalesce(max(m.now - d.first), 0)::bigint AS seconds,
    coalesce(sum(u.books), 0)::bigint AS unresolved
FROM accounts AS a
CROSS JOIN (SELECT floor(extract(EPOCH FROM clock_timestamp()))::bigint AS now) AS m
CROSS JOIN LATERAL (
    SELECT count(*) AS books, min(b.wake_at) AS first FROM books AS b
    WHERE b.account_id = a.account_id AND b.wake_at IS NOT NULL AND b.wake_at <= m.now
        AND NOT b.in_flight AND b.test_clock IS NULL
) AS d
CROSS JOIN LATERAL (
    SELECT count(*) AS books FROM books AS b WHERE b.account_id = a.account_id AND b.check_at IS NOT NULL
) AS u;

-- name: next_wake_of_account
-- Seconds, by the database's clock, until the first book of the account is due or must be checked.
SELECT least(
    (
        SELECT b.wake_at FROM books AS b
        WHERE b.account_id = $1 AND b.wake_at IS NOT NULL AND NOT b.in_flight AND b.test_clock IS NULL
        ORDER BY b.wake_at LIMIT 1
    ),
    (
        SELECT b.check_at FROM books AS b
        WHERE b.account_id = $1 AND b.check_at IS NOT NULL ORDER BY b.check_at LIMIT 1
    )
) - extract(EPOCH FROM clock_timestamp())::double precision;
