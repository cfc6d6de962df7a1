-- Automations, which stand on an account's pages, and their runs, which are part of the customers' books.
-- Only new things beside two wider ones: a program of the release before runs on this schema as it did.
--
-- Runs that have not ended are loaded with every book that has any (`books.holds`, 32), so when they wake need not be
-- searched for.

-- `pages_version` is the account's version at which the automation last changed, as for products and prices.
CREATE TABLE automations (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    name text NOT NULL,
    enabled boolean NOT NULL,
    trigger text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    conditions jsonb NOT NULL,
    actions jsonb NOT NULL,
    recipe text COLLATE "C",
    runs_canceled_version bigint NOT NULL,
    deleted boolean NOT NULL,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    pages_version bigint NOT NULL,
    CHECK (
        trigger IN (
            'invoice_due_date_upcoming', 'invoice_finalized', 'invoice_overdue', 'subscription_canceled',
            'subscription_payment_fails', 'customer_created'
        )
    ),
    CHECK (priority > 0),
    CHECK (runs_canceled_version <= version),
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id) REFERENCES accounts (account_id),
    -- Judged at the end of each statement, so that one of them may change the places of several.
    CONSTRAINT automations_priority EXCLUDE USING btree (
        account_id WITH =, trigger WITH =, priority WITH =
    ) WHERE (NOT deleted) DEFERRABLE INITIALLY IMMEDIATE
);

CREATE TYPE automation_row AS (
    id text,
    created bigint,
    name text,
    enabled boolean,
    trigger text,
    priority bigint,
    conditions jsonb,
    actions jsonb,
    recipe text,
    runs_canceled_version bigint,
    deleted boolean,
    metadata jsonb,
    version bigint
);

--   actions        those of the automation's version that the run started with
--   step           index of the next action, which happens at next_action_at
--   steps          the actions that were come to, with their times and results
CREATE TABLE automation_runs (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    automation text COLLATE "C" NOT NULL,
    automation_version bigint NOT NULL,
    name text NOT NULL,
    trigger text COLLATE "C" NOT NULL,
    trigger_event text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    invoice text COLLATE "C",
    subscription text COLLATE "C",
    status text COLLATE "C" NOT NULL,
    end_reason text COLLATE "C",
    ended_at bigint,
    actions jsonb NOT NULL,
    step bigint NOT NULL,
    next_action_at bigint,
    retrying_since bigint,
    retries_done bigint NOT NULL,
    steps jsonb NOT NULL,
    test_clock text COLLATE "C",
    version bigint NOT NULL,
    CHECK (
        trigger IN (
            'invoice_due_date_upcoming', 'invoice_finalized', 'invoice_overdue', 'subscription_canceled',
            'subscription_payment_fails', 'customer_created'
        )
    ),
    CHECK (status IN ('running', 'completed', 'terminated', 'canceled', 'failed')),
    CHECK (
        end_reason IN (
            'completed', 'invoice_paid', 'invoice_voided', 'auto_advance_disabled', 'subscription_canceled',
            'canceled_by_user', 'error'
        )
    ),
    CHECK ((status = 'running') = (ended_at IS NULL)),
    CHECK ((status = 'running') = (end_reason IS NULL)),
    CHECK (step >= 0 AND retries_done >= 0),
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 50);

CREATE INDEX automation_runs_newest ON automation_runs (account_id, created);
CREATE INDEX automation_runs_by_customer ON automation_runs (account_id, customer);
CREATE INDEX automation_runs_by_automation ON automation_runs (account_id, automation, created);
CREATE INDEX automation_runs_by_invoice ON automation_runs (account_id, invoice) WHERE invoice IS NOT NULL;

CREATE TYPE automation_run_row AS (
    id text,
    created bigint,
    automation text,
    automation_version bigint,
    name text,
    trigger text,
    trigger_event text,
    customer text,
    invoice text,
    subscription text,
    status text,
    end_reason text,
    ended_at bigint,
    actions jsonb,
    step bigint,
    next_action_at bigint,
    retrying_since bigint,
    retries_done bigint,
    steps jsonb,
    test_clock text,
    version bigint
);

ALTER TABLE automations ENABLE ROW LEVEL SECURITY;
ALTER TABLE automations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON automations
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE automation_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE automation_runs FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON automation_runs
    USING (account_id = nullif(current_setting('app.account', true), ''));

GRANT SELECT, INSERT, UPDATE, DELETE ON automations, automation_runs TO billing_app;

-- The run that owns an invoice's collection.
ALTER TABLE invoices ADD COLUMN automation_run text COLLATE "C";

CREATE TYPE invoice_row_2 AS (
    id text,
    created bigint,
    customer text,
    currency text,
    status text,
    billing_reason text,
    collection_method text,
    auto_advance boolean,
    period_start bigint,
    period_end bigint,
    lines jsonb,
    subscription text,
    subscription_metadata jsonb,
    automatically_finalizes_at bigint,
    number text,
    subtotal bigint,
    total bigint,
    starting_balance bigint,
    ending_balance bigint,
    amount_due bigint,
    amount_paid bigint,
    amount_remaining bigint,
    attempted boolean,
    attempt_count bigint,
    next_payment_attempt bigint,
    due_date bigint,
    days_until_due bigint,
    effective_at bigint,
    finalized_at bigint,
    paid_at bigint,
    voided_at bigint,
    marked_uncollectible_at bigint,
    paid_out_of_band boolean,
    pre_payment_credit_notes_amount bigint,
    post_payment_credit_notes_amount bigint,
    default_payment_method text,
    payment_intent jsonb,
    statement_descriptor text,
    description text,
    footer text,
    customer_email text,
    customer_name text,
    customer_address jsonb,
    metadata jsonb,
    test_clock text,
    attempts_started bigint,
    retries_done bigint,
    first_failure_at bigint,
    last_attempt_due_at bigint,
    hard_declined_method text,
    due_date_passed boolean,
    charging boolean,
    overdue_deadline_at bigint,
    collection_paused boolean,
    trial_over boolean,
    automation_run text,
    version bigint,
    wake_at bigint
);

-- Books may hold runs: a wider range of values, which every row there is obeys already.
-- squawk-ignore ban-drop-constraint
ALTER TABLE books DROP CONSTRAINT books_holds_check;
ALTER TABLE books ADD CONSTRAINT books_holds_check CHECK (holds BETWEEN 0 AND 63) NOT VALID;
