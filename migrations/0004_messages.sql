-- E-mail messages, staged in the transaction that causes them and delivered at least once (promise 21).
-- Only new things: a program of the release before runs on this schema as it did.
--   created       engine or test-clock time; everything else is real time
--   facts         all that the text needs, as it was when the message was caused
--   due_at        when it is tried next; while it is being sent, when the claim on it is over

CREATE TABLE messages (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    created_real bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    recipient text NOT NULL,
    locale text COLLATE "C",
    test_clock text COLLATE "C",
    facts jsonb NOT NULL,
    state text COLLATE "C" NOT NULL,
    due_at bigint,
    attempts bigint NOT NULL,
    settled_at bigint,
    error text,
    CHECK (
        kind IN (
            'trial_reminder', 'receipt', 'invoice_to_pay', 'payment_failed', 'upcoming_renewal',
            'cancellation_confirmation', 'team_memo'
        )
    ),
    CHECK (state IN ('due', 'sent', 'failed')),
    CHECK ((state = 'due') = (due_at IS NOT NULL)),
    CHECK ((state = 'due') = (settled_at IS NULL)),
    CHECK (attempts >= 0),
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 70);

CREATE INDEX messages_due ON messages (account_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX messages_settled ON messages (account_id, settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX messages_newest ON messages (account_id, created DESC, id DESC);
CREATE INDEX messages_by_customer ON messages (account_id, customer, created DESC, id DESC);

CREATE TYPE message_row AS (
    id text,
    created bigint,
    created_real bigint,
    customer text,
    kind text,
    recipient text,
    locale text,
    test_clock text,
    facts jsonb,
    state text,
    due_at bigint,
    attempts bigint,
    settled_at bigint,
    error text
);

ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON messages
    USING (account_id = nullif(current_setting('app.account', true), ''));

-- Finding the accounts that have messages to send looks across accounts, at nothing but when they are due.
CREATE POLICY sweep ON messages FOR SELECT USING (current_setting('app.sweep', true) = 'on');

GRANT SELECT, INSERT, UPDATE, DELETE ON messages TO billing_app;
