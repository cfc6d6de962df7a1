-- Metering: meters on an account's pages, the events that report usage, and the tallies that billing reads.
--
-- Events come in by the million and are read one by one only for the seconds at the ends of a billing period; all
-- else is read from tallies, which are kept as events come in. Both are written in the order of their keys, so that
-- no two transactions wait for each other in a circle.

-- `pages_version` is the account's version at which the meter last changed, as for products and prices.
CREATE TABLE meters (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    display_name text NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    formula text COLLATE "C" NOT NULL,
    event_time_window text COLLATE "C",
    status text COLLATE "C" NOT NULL,
    deactivated_at bigint,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    pages_version bigint NOT NULL,
    CHECK (formula IN ('sum', 'count', 'last')),
    CHECK (event_time_window IN ('hour', 'day')),
    CHECK (status IN ('active', 'inactive')),
    CHECK ((status = 'inactive') = (deactivated_at IS NOT NULL)),
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id) REFERENCES accounts (account_id)
);

CREATE UNIQUE INDEX meters_active_event_name ON meters (account_id, event_name) WHERE status = 'active';

-- What was reported, kept for 40 days. `digest` stands for meter and identifier, and is what makes a repeated event
-- a duplicate; it is random for events without an identifier. `received` is real time in microseconds, never the
-- same twice within a process.
CREATE TABLE meter_events (
    account_id text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    timestamp bigint NOT NULL,
    value bigint NOT NULL,
    received bigint NOT NULL,
    PRIMARY KEY (account_id, digest),
    CHECK (octet_length(digest) = 16)
);

CREATE INDEX meter_events_by_customer ON meter_events (account_id, customer, timestamp);
-- Rows are appended in the order of time: a summary of block ranges is all that purging needs.
CREATE INDEX meter_events_age ON meter_events USING brin (received) WITH (pages_per_range = 16);

-- The events of one customer and meter within [start, start + width): by minute and by hour. A meter with an
-- event_time_window has one row for each hour or day instead, which holds the event that was received last.
--   last           the value of the last event, by last_at (its timestamp) and then by last_received
--   received       when the first of the events was received; like last_received in microseconds of real time
CREATE TABLE meter_tallies (
    account_id text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    width bigint NOT NULL,
    start bigint NOT NULL,
    sum numeric NOT NULL,
    count bigint NOT NULL,
    last bigint NOT NULL,
    last_at bigint NOT NULL,
    last_received bigint NOT NULL,
    received bigint NOT NULL,
    PRIMARY KEY (account_id, customer, meter, width, start),
    CHECK (width IN (60, 3600, 86400)),
    CHECK (start % width = 0),
    CHECK (count > 0)
) WITH (fillfactor = 70);

CREATE INDEX meter_tallies_age ON meter_tallies USING brin (received) WITH (pages_per_range = 16);

CREATE TYPE meter_row AS (
    id text,
    created bigint,
    display_name text,
    event_name text,
    formula text,
    event_time_window text,
    status text,
    deactivated_at bigint,
    metadata jsonb,
    version bigint
);

CREATE TYPE meter_event_row AS (
    customer text,
    meter text,
    digest bytea,
    timestamp bigint,
    value bigint,
    received bigint
);

CREATE TYPE meter_tally_row AS (
    customer text,
    meter text,
    width bigint,
    start bigint,
    sum numeric,
    count bigint,
    last bigint,
    last_at bigint,
    last_received bigint
);

ALTER TABLE meters ENABLE ROW LEVEL SECURITY;
ALTER TABLE meters FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON meters
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE meter_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE meter_events FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON meter_events
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE meter_tallies ENABLE ROW LEVEL SECURITY;
ALTER TABLE meter_tallies FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON meter_tallies
    USING (account_id = nullif(current_setting('app.account', true), ''));

GRANT SELECT, INSERT, UPDATE ON meters TO billing_app;
-- Events are facts: appended, read, dropped when too old, never changed.
GRANT SELECT, INSERT, DELETE ON meter_events TO billing_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON meter_tallies TO billing_app;
