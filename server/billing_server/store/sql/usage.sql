-- name: reporters
-- What must be known of customers before their events are taken.
SELECT c.id, c.deleted, c.test_clock
FROM unnest($2::text[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM customers WHERE account_id = $1 AND id = wanted.id OFFSET 0) AS c;

-- name: clocks
-- Some test clocks, locked against setting out and against being deleted, not against each other's reporters.
SELECT {columns} FROM test_clocks
WHERE account_id = $1 AND id = ANY ($2) ORDER BY id FOR KEY SHARE;

-- name: microseconds
-- Real time by the database's clock.
SELECT floor(extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint;

-- name: insert_events
-- Events in the order of their digests; those that are there already are left out. What was inserted is told by
-- its moment of receipt.
INSERT INTO meter_events (account_id, customer, meter, digest, timestamp, value, received)
SELECT $1, customer, meter, digest, timestamp, value, received FROM unnest($2::meter_event_row[])
ON CONFLICT DO NOTHING
RETURNING received;

-- name: add_tallies
-- Adds to the tallies by minute and hour, in the order of their keys.
INSERT INTO meter_tallies AS o (
    account_id, customer, meter, width, start, sum, count, last, last_at, last_received, received
)
SELECT $1, customer, meter, width, start, sum, count, last, last_at, last_received, last_received
FROM unnest($2::meter_tally_row[])
ON CONFLICT (account_id, customer, meter, width, start) DO UPDATE SET
    sum = o.sum + excluded.sum,
    count = o.count + excluded.count,
    last = CASE
        WHEN (excluded.last_at, excluded.last_received) > (o.last_at, o.last_received) THEN excluded.last
        ELSE o.last
    END,
    last_at = greatest(o.last_at, excluded.last_at),
    last_received = CASE
        WHEN (excluded.last_at, excluded.last_received) > (o.last_at, o.last_received) THEN excluded.last_received
        ELSE o.last_received
    END;

-- name: replace_tallies
-- Puts events in the place of those of the same window that were received before, in the order of their keys.
INSERT INTO meter_tallies AS o (
    account_id, customer, meter, width, start, sum, count, last, last_at, last_received, received
)
SELECT $1, customer, meter, width, start, sum, count, last, last_at, last_received, last_received
FROM unnest($2::meter_tally_row[])
ON CONFLICT (account_id, customer, meter, width, start) DO UPDATE SET
    sum = excluded.sum,
    last = excluded.last,
    last_at = excluded.last_at,
    last_received = excluded.last_received
WHERE excluded.last_received > o.last_received;

-- name: tallied
-- Spans of time, put together from tallies by minute and hour. The greatest triple is that of the last event.
SELECT p.span, sum(t.sum), sum(t.count)::bigint, max(ARRAY[t.last_at, t.last_received, t.last])
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS p (span, customer, meter, width, first, last)
CROSS JOIN LATERAL (
    SELECT * FROM meter_tallies
    WHERE account_id = $1 AND customer = p.customer AND meter = p.meter AND width = p.width
        AND start >= p.first AND start < p.last
    OFFSET 0
) AS t
GROUP BY p.span;

-- name: windows
-- The same for meters with an event_time_window: a window belongs to the span in which its event lies.
SELECT p.span, sum(t.sum), sum(t.count)::bigint, max(ARRAY[t.last_at, t.last_received, t.last])
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS p (span, customer, meter, width, first, last)
CROSS JOIN LATERAL (
    SELECT * FROM meter_tallies
    WHERE account_id = $1 AND customer = p.customer AND meter = p.meter AND width = p.width
        AND start > p.first - p.width AND start < p.last AND last_at >= p.first AND last_at < p.last
    OFFSET 0
) AS t
GROUP BY p.span;

-- name: each
-- The same for some seconds, from single events.
SELECT p.span, sum(e.value), count(*), max(ARRAY[e.timestamp, e.received, e.value])
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS p (span, customer, meter, width, first, last)
CROSS JOIN LATERAL (
    SELECT * FROM meter_events
    WHERE account_id = $1 AND customer = p.customer AND timestamp >= p.first AND timestamp < p.last
        AND meter = p.meter
    OFFSET 0
) AS e
GROUP BY p.span;

-- name: purge_events
-- Drops a slice of the events received before a moment, but for the minutes in which a span begins or ends that is
-- still to be billed: of live subscriptions and of drafts, whatever has not been billed yet, and what is on a clock.
DELETE FROM meter_events WHERE ctid = ANY (ARRAY(
    SELECT e.ctid FROM meter_events AS e
    WHERE e.account_id = $1 AND e.received < $2
        AND NOT EXISTS (
            SELECT FROM books AS b
            WHERE b.account_id = $1 AND b.customer = e.customer AND b.test_clock IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT FROM subscriptions AS s
            WHERE s.account_id = $1 AND s.customer = e.customer AND s.status NOT IN ('canceled', 'incomplete_expired')
                AND (
                    s.current_period_start / 60 = e.timestamp / 60
                    OR (s.status <> 'paused' AND e.timestamp / 60 >= s.current_period_end / 60)
                    OR EXISTS (
                        SELECT FROM jsonb_array_elements(s.items) AS i
                        WHERE (i ->> 'usage_from')::bigint / 60 = e.timestamp / 60
                    )
                )
        )
        AND NOT EXISTS (
            SELECT FROM invoices AS i, jsonb_array_elements(i.lines) AS l
            WHERE i.account_id = $1 AND i.customer = e.customer AND i.unsettled AND i.status = 'draft'
                AND e.timestamp / 60 IN ((l ->> 'period_start')::bigint / 60, (l ->> 'period_end')::bigint / 60)
        )
    LIMIT $3
));

-- name: purge_minutes
-- Drops a slice of the tallies by minute that were begun before a moment, by the same rules: the hours in which a
-- span begins or ends stay.
DELETE FROM meter_tallies WHERE ctid = ANY (ARRAY(
    SELECT t.ctid FROM meter_tallies AS t
    WHERE t.account_id = $1 AND t.received < $2 AND t.last_received < $2 AND t.width = 60
        AND NOT EXISTS (
            SELECT FROM books AS b
            WHERE b.account_id = $1 AND b.customer = t.customer AND b.test_clock IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT FROM subscriptions AS s
            WHERE s.account_id = $1 AND s.customer = t.customer AND s.status NOT IN ('canceled', 'incomplete_expired')
                AND (
                    s.current_period_start / 3600 = t.start / 3600
                    OR (s.status <> 'paused' AND t.start / 3600 >= s.current_period_end / 3600)
                    OR EXISTS (
                        SELECT FROM jsonb_array_elements(s.items) AS i
                        WHERE (i ->> 'usage_from')::bigint / 3600 = t.start / 3600
                    )
                )
        )
        AND NOT EXISTS (
            SELECT FROM invoices AS i, jsonb_array_elements(i.lines) AS l
            WHERE i.account_id = $1 AND i.customer = t.customer AND i.unsettled AND i.status = 'draft'
                AND t.start / 3600 IN ((l ->> 'period_start')::bigint / 3600, (l ->> 'period_end')::bigint / 3600)
        )
    LIMIT $3
    FOR UPDATE OF t SKIP LOCKED
));
