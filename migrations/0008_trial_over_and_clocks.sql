-- Whether the end of a subscription's trial has still to be told on the statement of the first charge after it.
-- When a test clock is deleted by itself; never, where it was made before this.
-- A program of the release before leaves the new columns at their defaults, and goes on as it did.

ALTER TABLE subscriptions ADD COLUMN trial_over_untold boolean NOT NULL DEFAULT false;
ALTER TABLE test_clocks ADD COLUMN deletes_after bigint;

CREATE TYPE subscription_row_3 AS (
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
    trial_over_untold boolean,
    version bigint,
    wake_at bigint
);

CREATE TYPE test_clock_row_2 AS (
    id text,
    created bigint,
    name text,
    frozen_time bigint,
    status text,
    target_frozen_time bigint,
    failure text,
    deletes_after bigint,
    version bigint
);
