-- Durable consumers: readers of events whose position the server keeps.
-- Only new things: a program of the release before runs on this schema as it did.
--   consumers               what a consumer wants, and how it wants it delivered
--   consumer_connections    who consumes now; a connection that does not renew its lease is gone
--   consumer_shards         customers are spread over a fixed number of shards by a hash; each shard has its own
--                           position and is worked on by one connection at a time, so a customer's order needs
--                           nobody to coordinate it
--     position              all events of the shard up to here are settled, but for the pending ones
--     pending               [position, tries that ended badly, when due again (real time) or null], in order
--     floor                 all events of the shard up to here are settled
--   parked_events           events that were tried too often

CREATE TABLE consumers (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    types jsonb NOT NULL,
    customer text COLLATE "C",
    ack_timeout_seconds bigint NOT NULL,
    unacknowledged_max bigint NOT NULL,
    tries_max bigint NOT NULL,
    batch_max bigint NOT NULL,
    version bigint NOT NULL,
    CHECK (ack_timeout_seconds > 0),
    CHECK (unacknowledged_max > 0),
    CHECK (tries_max > 0),
    CHECK (batch_max > 0),
    PRIMARY KEY (account_id, id)
);

CREATE INDEX consumers_newest ON consumers (account_id, created DESC, id DESC);

CREATE TYPE consumer_row AS (
    id text,
    created bigint,
    types jsonb,
    customer text,
    ack_timeout_seconds bigint,
    unacknowledged_max bigint,
    tries_max bigint,
    batch_max bigint,
    version bigint
);

CREATE TABLE consumer_connections (
    account_id text COLLATE "C" NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (account_id, consumer, id),
    FOREIGN KEY (account_id, consumer) REFERENCES consumers (account_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE consumer_shards (
    account_id text COLLATE "C" NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    shard bigint NOT NULL,
    owner text COLLATE "C",
    position bigint NOT NULL,
    floor bigint NOT NULL,
    pending jsonb NOT NULL,
    delivered bigint NOT NULL DEFAULT 0,
    redelivered bigint NOT NULL DEFAULT 0,
    acknowledged bigint NOT NULL DEFAULT 0,
    CHECK (floor <= position),
    PRIMARY KEY (account_id, consumer, shard),
    FOREIGN KEY (account_id, consumer) REFERENCES consumers (account_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TYPE consumer_shard_row AS (
    shard bigint,
    position bigint,
    floor bigint,
    pending jsonb,
    delivered bigint,
    redelivered bigint,
    acknowledged bigint
);

CREATE TABLE parked_events (
    account_id text COLLATE "C" NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    shard bigint NOT NULL,
    tries bigint NOT NULL,
    reason text NOT NULL,
    parked_at bigint NOT NULL,
    retrying boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account_id, consumer, position),
    FOREIGN KEY (account_id, consumer) REFERENCES consumers (account_id, id) ON DELETE CASCADE
);

CREATE INDEX parked_events_retrying ON parked_events (account_id, consumer, position) WHERE retrying;

CREATE TYPE parked_event_row AS (
    position bigint,
    shard bigint,
    tries bigint,
    reason text
);

ALTER TABLE consumers ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumers FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON consumers
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE consumer_connections ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumer_connections FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON consumer_connections
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE consumer_shards ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumer_shards FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON consumer_shards
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE parked_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE parked_events FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON parked_events
    USING (account_id = nullif(current_setting('app.account', true), ''));

GRANT SELECT, INSERT, UPDATE, DELETE ON consumers TO billing_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON consumer_connections TO billing_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON consumer_shards TO billing_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON parked_events TO billing_app;
