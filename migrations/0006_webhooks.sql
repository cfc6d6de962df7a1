-- Webhooks: endpoints, their secrets, how far each has come in the log, and the deliveries of single events.
-- All times are real time. Only new things, and a column with a constant default: a program of the release before
-- runs on this schema as it did.

CREATE TABLE webhook_endpoints (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    url text NOT NULL,
    event_types jsonb NOT NULL,
    description text,
    status text COLLATE "C" NOT NULL,
    disabled_reason text COLLATE "C",
    disabled_at bigint,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    CHECK (status IN ('enabled', 'disabled')),
    CHECK (disabled_reason IN ('requested', 'gone')),
    CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL)),
    CHECK ((status = 'disabled') = (disabled_at IS NOT NULL)),
    PRIMARY KEY (account_id, id)
);

CREATE INDEX webhook_endpoints_newest ON webhook_endpoints (account_id, created DESC, id DESC);

CREATE TYPE webhook_endpoint_row AS (
    id text,
    created bigint,
    url text,
    event_types jsonb,
    description text,
    status text,
    disabled_reason text,
    disabled_at bigint,
    metadata jsonb,
    version bigint
);

-- A signature is made with the secret itself, so it cannot be kept as a hash as those of API keys are. It stands in
-- a table of its own, which only signing and the answer to its maker read: it is in no object, event, list, kept answer
-- or log. Row-level security shows it to its account alone. Against whoever reads the database's files or backups it
-- is protected as the rest of the data: by the encryption of the disk.
--   number      counts the endpoint's secrets from 1; the one with the highest is the current one
--   expires_at  NULL for the current one; the others sign until then
CREATE TABLE webhook_secrets (
    account_id text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    secret bytea NOT NULL,
    expires_at bigint,
    PRIMARY KEY (account_id, endpoint, number)
);

-- How far an enabled endpoint has come; a disabled one has none. Apart from its endpoint, because it changes with
-- every batch of deliveries.
--   position  the last event of the log for which it was decided whether the endpoint gets it
--   failures  tries that failed since the last that went well
--   retry_at  while it is sick: when one delivery is tried, to sound it out
CREATE TABLE webhook_cursors (
    account_id text COLLATE "C" NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    failures bigint NOT NULL DEFAULT 0,
    retry_at bigint,
    CHECK (failures >= 0),
    PRIMARY KEY (account_id, endpoint)
) WITH (fillfactor = 50);

CREATE TABLE webhook_deliveries (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    attempts bigint NOT NULL,
    started_at bigint NOT NULL,
    due_at bigint,
    tried_at bigint,
    response_status bigint,
    error text,
    settled_at bigint,
    CHECK (state IN ('pending', 'delivered', 'failed', 'canceled')),
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK (attempts >= 0),
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 70);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (account_id, endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_settled ON webhook_deliveries (account_id, settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (account_id, created DESC, id DESC);
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (account_id, endpoint, created DESC, id DESC);
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (account_id, event);

CREATE TYPE webhook_delivery_row AS (
    id text,
    created bigint,
    endpoint text,
    event text,
    position bigint,
    event_type text,
    state text,
    attempts bigint,
    started_at bigint,
    due_at bigint,
    tried_at bigint,
    response_status bigint,
    error text,
    settled_at bigint
);

ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON webhook_endpoints
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE webhook_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON webhook_secrets
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE webhook_cursors ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_cursors FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON webhook_cursors
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON webhook_deliveries
    USING (account_id = nullif(current_setting('app.account', true), ''));

-- Finding the endpoints that have something to get looks across accounts, at nothing but how far they have come.
CREATE POLICY sweep ON event_heads FOR SELECT USING (current_setting('app.sweep', true) = 'on');
CREATE POLICY sweep ON webhook_cursors FOR SELECT USING (current_setting('app.sweep', true) = 'on');
CREATE POLICY sweep ON webhook_deliveries FOR SELECT USING (current_setting('app.sweep', true) = 'on');

GRANT SELECT, INSERT, UPDATE, DELETE ON
    webhook_endpoints, webhook_secrets, webhook_cursors, webhook_deliveries
    TO billing_app;

-- Whether only readers of the log learn of an event: it is about an invoice born while collection is paused.
ALTER TABLE events ADD COLUMN quiet boolean NOT NULL DEFAULT false;

CREATE TYPE event_row_2 AS (
    type text,
    customer text,
    object_id text,
    created bigint,
    payload bytea,
    quiet boolean
);
