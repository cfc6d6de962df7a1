-- Subscription schedules: the phases that a subscription goes through.
--
-- The plan of phases is one jsonb value, since it is read and written whole with its schedule. Schedules that have not
-- ended are loaded with every book that has any (`books.holds`, 16), so when they wake need not be searched for.

CREATE TABLE subscription_schedules (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    phases jsonb NOT NULL,
    current_phase jsonb,
    end_behavior text COLLATE "C" NOT NULL,
    default_settings jsonb NOT NULL,
    subscription text COLLATE "C",
    released_subscription text COLLATE "C",
    canceled_at bigint,
    completed_at bigint,
    released_at bigint,
    metadata jsonb NOT NULL,
    test_clock text COLLATE "C",
    expiring_at bigint,
    version bigint NOT NULL,
    CHECK (status IN ('not_started', 'active', 'completed', 'released', 'canceled')),
    CHECK (end_behavior IN ('release', 'cancel')),
    PRIMARY KEY (account_id, id),
    CHECK ((status = 'active') = (current_phase IS NOT NULL)),
    CHECK (status NOT IN ('active', 'completed') OR subscription IS NOT NULL),
    CHECK (status NOT IN ('not_started', 'released') OR subscription IS NULL),
    CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
    CHECK ((status = 'released') = (released_at IS NOT NULL)),
    CHECK ((status = 'canceled') = (canceled_at IS NOT NULL))
) WITH (fillfactor = 50);

CREATE INDEX subscription_schedules_newest ON subscription_schedules (account_id, created);
CREATE INDEX subscription_schedules_by_customer ON subscription_schedules (account_id, customer);

CREATE TYPE subscription_schedule_row AS (
    id text,
    created bigint,
    customer text,
    status text,
    phases jsonb,
    current_phase jsonb,
    end_behavior text,
    default_settings jsonb,
    subscription text,
    released_subscription text,
    canceled_at bigint,
    completed_at bigint,
    released_at bigint,
    metadata jsonb,
    test_clock text,
    expiring_at bigint,
    version bigint
);

ALTER TABLE subscription_schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscription_schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON subscription_schedules
    USING (account_id = nullif(current_setting('app.account', true), ''));

GRANT SELECT, INSERT, UPDATE, DELETE ON subscription_schedules TO billing_app;

-- The schedule of a subscription.
ALTER TABLE subscriptions ADD COLUMN schedule text COLLATE "C";

CREATE TYPE subscription_row_2 AS (
    id text,
    created bigint,
    customer text,
    status text,
    currency text,
    items jsonb,
    interval text,
    interval_count bigint,
    collection_method text,
    days_until_due bigint,
    start_date bigint,
    billing_cycle_anchor bigint,
    billing_cycle_anchor_config jsonb,
    billing_mode text,
    current_period_start bigint,
    current_period_end bigint,
    cancel_at bigint,
    cancel_at_period_end boolean,
    canceled_at bigint,
    ended_at bigint,
    cancellation_details jsonb,
    trial_start bigint,
    trial_end bigint,
    missing_payment_method text,
    pause_collection jsonb,
    default_payment_method text,
    save_default_payment_method text,
    off_session boolean,
    description text,
    latest_invoice text,
    schedule text,
    first_invoice text,
    status_invoice text,
    resumption_invoice text,
    pending_update jsonb,
    pending_invoice_item_interval jsonb,
    next_pending_invoice_item_invoice bigint,
    metadata jsonb,
    test_clock text,
    expires_at bigint,
    trial_will_end_at bigint,
    trial_reminder_at bigint,
    upcoming_at bigint,
    free_stub boolean,
    version bigint,
    wake_at bigint
);

-- Books may hold schedules: a wider range of values, which every row there is obeys already.
-- squawk-ignore ban-drop-constraint
ALTER TABLE books DROP CONSTRAINT books_holds_check;
ALTER TABLE books ADD CONSTRAINT books_holds_check CHECK (holds BETWEEN 0 AND 31) NOT VALID;
