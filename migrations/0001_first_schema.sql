-- The first schema: accounts, their pages (settings, catalog), the books of their customers, and their events.
--
-- Conventions
--   * Every table belongs to one account at a time: account_id is the first column of every key, and row-level
--     security, which is forced, hides all other accounts. Nothing refers to another account.
--   * Ids are texts compared byte by byte (COLLATE "C": faster, and the same order everywhere); instants are
--     integer UTC seconds, amounts integer minor units of the row's currency.
--   * Columns are named as the fields of the domain's structs. Nested values (lines, items, addresses) are jsonb.
--   * Columns that are indexed or stand in an index's condition are few and seldom change: a change of any of
--     them costs a new entry in every index of the table.
--   * Tables whose rows change are half filled, so that a billing run finds room for the new version of each row on its
--     own page (HOT), and indexes need not be touched.
--   * `<noun>_row` types carry many rows as one array parameter (COPY cannot be used under row-level security).
--     They are never altered, since servers of two releases may run at once: a later release makes a new type.

-- The role that the server becomes after connecting. It owns nothing and bypasses nothing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'billing_app') THEN
        CREATE ROLE billing_app NOLOGIN NOBYPASSRLS;
    END IF;
EXCEPTION
    -- Another database of the same cluster is being migrated at the same moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- A migrating role that is no superuser must itself be allowed to become the server's role. Since PostgreSQL 16 being
-- a member (as the creator of a role is) does not imply that.
DO $$
DECLARE
    needed text := CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END;
BEGIN
    IF NOT pg_has_role(current_user, 'billing_app', needed) THEN
        EXECUTE format('GRANT billing_app TO %I', current_user);
    END IF;
END
$$;

-- Accounts and their pages -------------------------------------------------------------------------------------

-- `pages_version` grows by one with every change of settings, products or prices: it tells caches what is stale.
CREATE TABLE accounts (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    name text NOT NULL,
    settings jsonb NOT NULL,
    version bigint NOT NULL,
    pages_version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (account_id),
    CHECK (id = account_id),
    CHECK (account_id ~ '^[a-z0-9_]+$')
);

-- The position of the account's last event. Locked last in every transaction, so positions are dense and in the
-- order of commits. Apart from accounts and narrow, because it changes with every transaction.
CREATE TABLE event_heads (
    account_id text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL CHECK (position >= 0)
) WITH (fillfactor = 10);

CREATE TABLE api_keys (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    name text NOT NULL,
    scopes jsonb NOT NULL,
    last_four text COLLATE "C" NOT NULL,
    revoked_at bigint,
    version bigint NOT NULL,
    secret_hash bytea NOT NULL,
    PRIMARY KEY (account_id, id),
    UNIQUE (secret_hash),
    FOREIGN KEY (account_id) REFERENCES accounts (account_id)
);

-- `pages_version` of a product or price is the account's version at which it last changed.
CREATE TABLE products (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL,
    description text,
    default_price text COLLATE "C",
    statement_descriptor text,
    unit_label text,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    pages_version bigint NOT NULL,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id) REFERENCES accounts (account_id)
);

CREATE TABLE prices (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    product text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    type text COLLATE "C" NOT NULL,
    nickname text,
    billing_scheme text COLLATE "C" NOT NULL,
    unit_amount numeric,
    recurring jsonb,
    tiers jsonb NOT NULL,
    tiers_mode text COLLATE "C",
    transform_quantity jsonb,
    lookup_key text COLLATE "C",
    tax_behavior text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    pages_version bigint NOT NULL,
    CHECK (type IN ('one_time', 'recurring')),
    CHECK (billing_scheme IN ('per_unit', 'tiered')),
    CHECK (tiers_mode IN ('graduated', 'volume')),
    CHECK (tax_behavior IN ('unspecified', 'inclusive', 'exclusive')),
    PRIMARY KEY (account_id, id),
    -- Checked when a statement ends: a key may move from one price to another in one statement.
    UNIQUE (account_id, lookup_key) DEFERRABLE,
    FOREIGN KEY (account_id, product) REFERENCES products (account_id, id),
    CHECK (unit_amount >= 0),
    CHECK ((type = 'recurring') = (recurring IS NOT NULL)),
    CHECK (billing_scheme = 'per_unit' OR tiers_mode IS NOT NULL)
);

-- Customers and their books --------------------------------------------------------------------------------------

CREATE TABLE test_clocks (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    name text,
    frozen_time bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    target_frozen_time bigint,
    failure text,
    version bigint NOT NULL,
    CHECK (status IN ('ready', 'advancing', 'internal_failure')),
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id) REFERENCES accounts (account_id),
    CHECK ((status = 'advancing') = (target_frozen_time IS NOT NULL)),
    CHECK (target_frozen_time >= frozen_time)
);

CREATE TABLE customers (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    invoice_prefix text COLLATE "C" NOT NULL,
    email text,
    name text,
    phone text,
    description text,
    address jsonb,
    shipping jsonb,
    preferred_locale text COLLATE "C",
    currency text COLLATE "C",
    balance bigint NOT NULL,
    delinquent boolean NOT NULL,
    next_invoice_sequence bigint NOT NULL,
    default_payment_method text COLLATE "C",
    tax_exempt text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL,
    test_clock text COLLATE "C",
    deleted boolean NOT NULL,
    version bigint NOT NULL,
    CHECK (tax_exempt IN ('none', 'exempt', 'reverse')),
    PRIMARY KEY (account_id, id),
    -- Invoice numbers begin with the prefix, and no two invoices of an account share a number.
    UNIQUE (account_id, invoice_prefix),
    FOREIGN KEY (account_id, test_clock) REFERENCES test_clocks (account_id, id),
    CHECK (next_invoice_sequence >= 1)
) WITH (fillfactor = 50);

CREATE INDEX customers_newest ON customers (account_id, created);
CREATE INDEX customers_by_email ON customers (account_id, email) WHERE email IS NOT NULL;

-- What the engine must know of each book before it opens it, one narrow row per customer: the row that is locked
-- when the book is, and found when the book is due. Apart from customers, whose wide row and indexes would
-- otherwise be written again at each step of time.
--   wake_at    the earliest moment at which time alone changes something in the book
--   in_flight  a charge is under way; time stands still
--   check_at   the earliest real moment at which an unresolved charge or refund must be looked at
--   holds      which parts the book has at all, so that empty ones are not looked for: 1 attached payment methods,
--              2 pending invoice items, 4 unresolved attempts, 8 unresolved refunds
CREATE TABLE books (
    account_id text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    test_clock text COLLATE "C",
    wake_at bigint,
    in_flight boolean NOT NULL,
    check_at bigint,
    -- squawk-ignore prefer-bigint-over-smallint
    holds smallint NOT NULL,
    PRIMARY KEY (account_id, customer),
    CHECK (holds BETWEEN 0 AND 15)
) WITH (fillfactor = 60);

CREATE INDEX books_due ON books (account_id, wake_at)
    WHERE wake_at IS NOT NULL AND NOT in_flight AND test_clock IS NULL;
CREATE INDEX books_due_by_clock ON books (account_id, test_clock, wake_at) WHERE test_clock IS NOT NULL;
CREATE INDEX books_to_check ON books (account_id, check_at) WHERE check_at IS NOT NULL;

CREATE TABLE payment_methods (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    card jsonb,
    billing_name text,
    billing_email text,
    metadata jsonb NOT NULL,
    detached_at bigint,
    version bigint NOT NULL,
    CHECK (type IN ('card', 'us_bank_account', 'sepa_debit', 'customer_balance')),
    PRIMARY KEY (account_id, id)
);

CREATE INDEX payment_methods_attached ON payment_methods (account_id, customer) WHERE detached_at IS NULL;

CREATE TABLE balance_transactions (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    ending_balance bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    invoice text COLLATE "C",
    credit_note text COLLATE "C",
    description text,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    CHECK (type IN (
        'adjustment', 'applied_to_invoice', 'unapplied_from_invoice', 'credit_note', 'initial',
        'invoice_too_small', 'invoice_too_large', 'invoice_overpaid', 'migration'
    )),
    PRIMARY KEY (account_id, id)
);

CREATE INDEX balance_transactions_by_customer ON balance_transactions (account_id, customer, created);

-- Subscriptions and invoices -------------------------------------------------------------------------------------

-- `wake_at` is the next moment at which time alone changes the subscription.
CREATE TABLE subscriptions (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    items jsonb NOT NULL,
    interval text COLLATE "C" NOT NULL,
    interval_count bigint NOT NULL,
    collection_method text COLLATE "C" NOT NULL,
    days_until_due bigint,
    start_date bigint NOT NULL,
    billing_cycle_anchor bigint NOT NULL,
    billing_cycle_anchor_config jsonb,
    billing_mode text COLLATE "C" NOT NULL,
    current_period_start bigint NOT NULL,
    current_period_end bigint NOT NULL,
    cancel_at bigint,
    cancel_at_period_end boolean NOT NULL,
    canceled_at bigint,
    ended_at bigint,
    cancellation_details jsonb NOT NULL,
    trial_start bigint,
    trial_end bigint,
    missing_payment_method text COLLATE "C" NOT NULL,
    pause_collection jsonb,
    default_payment_method text COLLATE "C",
    save_default_payment_method text COLLATE "C" NOT NULL,
    off_session boolean NOT NULL,
    description text,
    latest_invoice text COLLATE "C",
    first_invoice text COLLATE "C",
    status_invoice text COLLATE "C",
    resumption_invoice text COLLATE "C",
    pending_update jsonb,
    pending_invoice_item_interval jsonb,
    next_pending_invoice_item_invoice bigint,
    metadata jsonb NOT NULL,
    test_clock text COLLATE "C",
    expires_at bigint,
    trial_will_end_at bigint,
    trial_reminder_at bigint,
    upcoming_at bigint,
    free_stub boolean NOT NULL,
    version bigint NOT NULL,
    wake_at bigint,
    CHECK (status IN (
        'incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled',
        'unpaid', 'paused'
    )),
    CHECK (interval IN ('day', 'week', 'month', 'year')),
    CHECK (collection_method IN ('charge_automatically', 'send_invoice')),
    CHECK (billing_mode IN ('classic', 'flexible')),
    CHECK (missing_payment_method IN ('create_invoice', 'cancel', 'pause')),
    CHECK (save_default_payment_method IN ('off', 'on_subscription')),
    PRIMARY KEY (account_id, id),
    CHECK ((status IN ('canceled', 'incomplete_expired')) = (ended_at IS NOT NULL)),
    CHECK (status NOT IN ('canceled', 'incomplete_expired') OR wake_at IS NULL),
    CHECK (status <> 'trialing' OR trial_end IS NOT NULL),
    CHECK (status <> 'incomplete' OR expires_at IS NOT NULL),
    CHECK (collection_method = 'charge_automatically' OR days_until_due IS NOT NULL),
    CHECK (current_period_start <= current_period_end),
    CHECK (interval_count > 0)
) WITH (fillfactor = 50);

CREATE INDEX subscriptions_newest ON subscriptions (account_id, created);
-- For the due ones of a customer, and for all of them. Not by wake_at: an index of what changes at each renewal would
-- make the renewal three times as dear, and save a customer with thousands of subscriptions some milliseconds.
CREATE INDEX subscriptions_by_customer ON subscriptions (account_id, customer);

-- Lines and the payment intent live in the invoice's row: one row and one set of index entries per invoice.
-- `unsettled` stays the same from draft to open, so that finalizing touches no index.
CREATE TABLE invoices (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    billing_reason text COLLATE "C" NOT NULL,
    collection_method text COLLATE "C" NOT NULL,
    auto_advance boolean NOT NULL,
    period_start bigint NOT NULL,
    period_end bigint NOT NULL,
    lines jsonb NOT NULL,
    subscription text COLLATE "C",
    subscription_metadata jsonb NOT NULL,
    automatically_finalizes_at bigint,
    number text COLLATE "C",
    subtotal bigint NOT NULL,
    total bigint NOT NULL,
    starting_balance bigint NOT NULL,
    ending_balance bigint,
    amount_due bigint NOT NULL,
    amount_paid bigint NOT NULL,
    amount_remaining bigint NOT NULL,
    attempted boolean NOT NULL,
    attempt_count bigint NOT NULL,
    next_payment_attempt bigint,
    due_date bigint,
    days_until_due bigint,
    effective_at bigint,
    finalized_at bigint,
    paid_at bigint,
    voided_at bigint,
    marked_uncollectible_at bigint,
    paid_out_of_band boolean NOT NULL,
    pre_payment_credit_notes_amount bigint NOT NULL,
    post_payment_credit_notes_amount bigint NOT NULL,
    default_payment_method text COLLATE "C",
    payment_intent jsonb,
    statement_descriptor text,
    description text,
    footer text,
    customer_email text,
    customer_name text,
    customer_address jsonb,
    metadata jsonb NOT NULL,
    test_clock text COLLATE "C",
    attempts_started bigint NOT NULL,
    retries_done bigint NOT NULL,
    first_failure_at bigint,
    last_attempt_due_at bigint,
    hard_declined_method text COLLATE "C",
    due_date_passed boolean NOT NULL,
    charging boolean NOT NULL,
    overdue_deadline_at bigint,
    collection_paused boolean NOT NULL,
    trial_over boolean NOT NULL,
    version bigint NOT NULL,
    wake_at bigint,
    unsettled boolean NOT NULL GENERATED ALWAYS AS (status IN ('draft', 'open')) STORED,
    CHECK (status IN ('draft', 'open', 'paid', 'uncollectible', 'void')),
    CHECK (billing_reason IN (
        'subscription_create', 'subscription_cycle', 'subscription_update',
        'subscription_threshold', 'automatic_pending_invoice_item_invoice', 'manual', 'upcoming'
    )),
    CHECK (collection_method IN ('charge_automatically', 'send_invoice')),
    PRIMARY KEY (account_id, id),
    CHECK (amount_paid + amount_remaining = amount_due),
    CHECK (amount_due >= 0 AND amount_paid >= 0 AND amount_remaining >= 0),
    CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    CHECK ((status = 'void') = (voided_at IS NOT NULL)),
    CHECK (status <> 'uncollectible' OR marked_uncollectible_at IS NOT NULL),
    CHECK (status NOT IN ('open', 'paid') OR (finalized_at IS NOT NULL AND number IS NOT NULL)),
    CHECK (status <> 'draft' OR (finalized_at IS NULL AND number IS NULL)),
    CHECK (status IN ('draft', 'open') OR (NOT auto_advance AND wake_at IS NULL)),
    CHECK (collection_method = 'send_invoice' OR due_date IS NULL),
    CHECK (attempt_count >= 0 AND attempts_started >= 0 AND retries_done >= 0),
    CHECK (pre_payment_credit_notes_amount >= 0 AND post_payment_credit_notes_amount >= 0)
) WITH (fillfactor = 50);

CREATE INDEX invoices_newest ON invoices (account_id, created);
CREATE INDEX invoices_by_customer ON invoices (account_id, customer, created);
CREATE INDEX invoices_unsettled ON invoices (account_id, customer, subscription) WHERE unsettled;

CREATE TABLE invoice_items (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    description text NOT NULL,
    quantity bigint NOT NULL,
    unit_amount bigint,
    price text COLLATE "C",
    subscription text COLLATE "C",
    subscription_item text COLLATE "C",
    invoice text COLLATE "C",
    proration boolean NOT NULL,
    discountable boolean NOT NULL,
    period_start bigint NOT NULL,
    period_end bigint NOT NULL,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (period_start <= period_end)
);

CREATE INDEX invoice_items_by_customer ON invoice_items (account_id, customer, created);
CREATE INDEX invoice_items_pending ON invoice_items (account_id, customer) WHERE invoice IS NULL;
CREATE INDEX invoice_items_by_invoice ON invoice_items (account_id, invoice) WHERE invoice IS NOT NULL;

CREATE TABLE credit_notes (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    number text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    invoice text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    reason text COLLATE "C",
    memo text,
    pre_payment_amount bigint NOT NULL,
    post_payment_amount bigint NOT NULL,
    refund_amount bigint NOT NULL,
    credit_amount bigint NOT NULL,
    out_of_band_amount bigint NOT NULL,
    refund text COLLATE "C",
    customer_balance_transaction text COLLATE "C",
    voided_at bigint,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    CHECK (type IN ('pre_payment', 'post_payment', 'mixed')),
    CHECK (status IN ('issued', 'void')),
    CHECK (reason IN ('duplicate', 'fraudulent', 'order_change', 'product_unsatisfactory')),
    PRIMARY KEY (account_id, id),
    CHECK (amount > 0 AND amount = pre_payment_amount + post_payment_amount),
    CHECK (post_payment_amount = refund_amount + credit_amount + out_of_band_amount),
    CHECK (pre_payment_amount >= 0 AND refund_amount >= 0 AND credit_amount >= 0 AND out_of_band_amount >= 0),
    CHECK ((status = 'void') = (voided_at IS NOT NULL))
);

CREATE INDEX credit_notes_by_invoice ON credit_notes (account_id, invoice);

-- Payments -------------------------------------------------------------------------------------------------------

-- At most one attempt of an invoice has an outcome that is not known, and attempts are numbered without doubles:
-- both are what keeps a customer from being charged twice.
CREATE TABLE payment_attempts (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    created_real bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    invoice text COLLATE "C" NOT NULL,
    subscription text COLLATE "C",
    number bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    due_at bigint NOT NULL,
    amount bigint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    payment_method text COLLATE "C",
    token text COLLATE "C",
    off_session boolean NOT NULL,
    authenticated boolean NOT NULL,
    state text COLLATE "C" NOT NULL,
    check_at bigint,
    checks bigint NOT NULL,
    needs_review boolean NOT NULL,
    error jsonb,
    gateway_reference text COLLATE "C",
    settled_at bigint,
    amount_refunded bigint NOT NULL,
    statement_descriptor text,
    proposal bytea,
    version bigint NOT NULL,
    CHECK (kind IN ('initial', 'retry', 'manual')),
    CHECK (state IN ('started', 'unknown', 'succeeded', 'failed', 'requires_action', 'not_executed')),
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, invoice, number),
    CHECK (number >= 1 AND checks >= 0),
    CHECK (amount >= 0 AND amount_refunded BETWEEN 0 AND amount),
    CHECK (state <> 'started' OR check_at IS NOT NULL),
    CHECK (state IN ('started', 'unknown') OR check_at IS NULL),
    CHECK (state <> 'succeeded' OR settled_at IS NOT NULL)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX payment_attempts_unresolved ON payment_attempts (account_id, customer, invoice)
    WHERE state IN ('started', 'unknown');

CREATE TABLE refunds (
    account_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    created_real bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    invoice text COLLATE "C" NOT NULL,
    attempt text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    credit_note text COLLATE "C",
    check_at bigint,
    checks bigint NOT NULL,
    needs_review boolean NOT NULL,
    charge_reference text COLLATE "C",
    gateway_reference text COLLATE "C",
    failure_message text,
    settled_at bigint,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    CHECK (reason IN ('duplicate', 'fraudulent', 'requested_by_customer', 'late_payment')),
    CHECK (status IN ('pending', 'unknown', 'succeeded', 'failed')),
    PRIMARY KEY (account_id, id),
    CHECK (amount > 0 AND checks >= 0),
    CHECK (status <> 'succeeded' OR settled_at IS NOT NULL)
);

CREATE INDEX refunds_by_invoice ON refunds (account_id, invoice);
CREATE INDEX refunds_unresolved ON refunds (account_id, customer) WHERE status IN ('pending', 'unknown');

-- What the built-in test gateway has been asked, so that it deduplicates across processes and restarts.
-- `effects` counts how often money moved for the key: anything but 0 or 1 is a bug that audits look for.
CREATE TABLE test_gateway_charges (
    account_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    outcome bytea NOT NULL,
    effects bigint NOT NULL CHECK (effects >= 0),
    asked bigint NOT NULL DEFAULT 1 CHECK (asked >= 1),
    created bigint NOT NULL,
    PRIMARY KEY (account_id, key)
);

CREATE TABLE test_gateway_refunds (
    account_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    outcome bytea NOT NULL,
    effects bigint NOT NULL CHECK (effects >= 0),
    asked bigint NOT NULL DEFAULT 1 CHECK (asked >= 1),
    created bigint NOT NULL,
    PRIMARY KEY (account_id, key)
);

-- Commands and events --------------------------------------------------------------------------------------------

-- Answers to commands, kept for a day at least; a repeated command gets the first answer again.
CREATE TABLE idempotency_keys (
    account_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    request_hash bytea NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('in_progress', 'complete')),
    resource text COLLATE "C",
    response bytea,
    created bigint NOT NULL,
    PRIMARY KEY (account_id, key),
    CHECK (state = 'in_progress' OR response IS NOT NULL)
);

-- Rows are appended in the order of time: a summary of block ranges is all that purging needs.
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created) WITH (pages_per_range = 16);

-- `payload` is the serialized message, ready to be sent. `created` is engine or test-clock time, `created_real` real
-- time, by which retention counts.
CREATE TABLE events (
    account_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    customer text COLLATE "C",
    object_id text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    created_real bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (account_id, position)
);

-- Events of one customer. An event without one (of a product, a test clock) is found by its object. Events of other
-- objects are found through their customer: a third index would cost more than all that it could save.
-- (Written as CASE, since row-level security keeps PostgreSQL from searching an index by COALESCE.)
CREATE INDEX events_by_subject ON events
    (account_id, (CASE WHEN customer IS NULL THEN object_id ELSE customer END), position);

-- Row types ------------------------------------------------------------------------------------------------------

CREATE TYPE product_row AS (
    id text,
    created bigint,
    name text,
    active boolean,
    description text,
    default_price text,
    statement_descriptor text,
    unit_label text,
    metadata jsonb,
    version bigint
);

CREATE TYPE price_row AS (
    id text,
    created bigint,
    product text,
    currency text,
    active boolean,
    type text,
    nickname text,
    billing_scheme text,
    unit_amount numeric,
    recurring jsonb,
    tiers jsonb,
    tiers_mode text,
    transform_quantity jsonb,
    lookup_key text,
    tax_behavior text,
    metadata jsonb,
    version bigint
);

CREATE TYPE customer_row AS (
    id text,
    created bigint,
    invoice_prefix text,
    email text,
    name text,
    phone text,
    description text,
    address jsonb,
    shipping jsonb,
    preferred_locale text,
    currency text,
    balance bigint,
    delinquent boolean,
    next_invoice_sequence bigint,
    default_payment_method text,
    tax_exempt text,
    metadata jsonb,
    test_clock text,
    deleted boolean,
    version bigint
);

CREATE TYPE payment_method_row AS (
    id text,
    created bigint,
    customer text,
    type text,
    token text,
    card jsonb,
    billing_name text,
    billing_email text,
    metadata jsonb,
    detached_at bigint,
    version bigint
);

CREATE TYPE balance_transaction_row AS (
    id text,
    created bigint,
    customer text,
    currency text,
    amount bigint,
    ending_balance bigint,
    type text,
    invoice text,
    credit_note text,
    description text,
    metadata jsonb,
    version bigint
);

CREATE TYPE subscription_row AS (
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

CREATE TYPE invoice_row AS (
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
    version bigint,
    wake_at bigint
);

CREATE TYPE invoice_item_row AS (
    id text,
    created bigint,
    customer text,
    currency text,
    amount bigint,
    description text,
    quantity bigint,
    unit_amount bigint,
    price text,
    subscription text,
    subscription_item text,
    invoice text,
    proration boolean,
    discountable boolean,
    period_start bigint,
    period_end bigint,
    metadata jsonb,
    version bigint
);

CREATE TYPE credit_note_row AS (
    id text,
    created bigint,
    number text,
    customer text,
    invoice text,
    currency text,
    amount bigint,
    type text,
    status text,
    reason text,
    memo text,
    pre_payment_amount bigint,
    post_payment_amount bigint,
    refund_amount bigint,
    credit_amount bigint,
    out_of_band_amount bigint,
    refund text,
    customer_balance_transaction text,
    voided_at bigint,
    metadata jsonb,
    version bigint
);

CREATE TYPE payment_attempt_row AS (
    id text,
    created bigint,
    created_real bigint,
    customer text,
    invoice text,
    subscription text,
    number bigint,
    kind text,
    due_at bigint,
    amount bigint,
    currency text,
    payment_method text,
    token text,
    off_session boolean,
    authenticated boolean,
    state text,
    check_at bigint,
    checks bigint,
    needs_review boolean,
    error jsonb,
    gateway_reference text,
    settled_at bigint,
    amount_refunded bigint,
    statement_descriptor text,
    proposal bytea,
    version bigint
);

CREATE TYPE refund_row AS (
    id text,
    created bigint,
    created_real bigint,
    customer text,
    invoice text,
    attempt text,
    amount bigint,
    currency text,
    reason text,
    status text,
    credit_note text,
    check_at bigint,
    checks bigint,
    needs_review boolean,
    charge_reference text,
    gateway_reference text,
    failure_message text,
    settled_at bigint,
    metadata jsonb,
    version bigint
);

CREATE TYPE test_clock_row AS (
    id text,
    created bigint,
    name text,
    frozen_time bigint,
    status text,
    target_frozen_time bigint,
    failure text,
    version bigint
);

CREATE TYPE account_row AS (
    id text,
    created bigint,
    name text,
    settings jsonb,
    version bigint
);

CREATE TYPE api_key_row AS (
    id text,
    created bigint,
    name text,
    scopes jsonb,
    last_four text,
    revoked_at bigint,
    version bigint
);

CREATE TYPE book_row AS (
    customer text,
    test_clock text,
    wake_at bigint,
    in_flight boolean,
    check_at bigint,
    holds smallint
);

CREATE TYPE idempotency_key_row AS (
    key text,
    method text,
    request_hash bytea,
    state text,
    resource text,
    response bytea,
    created bigint
);

CREATE TYPE event_row AS (
    type text,
    customer text,
    object_id text,
    created bigint,
    payload bytea
);

CREATE TYPE test_gateway_row AS (
    key text,
    fingerprint bytea,
    outcome bytea,
    effects bigint,
    created bigint
);

-- Row-level security ---------------------------------------------------------------------------------------------

-- A transaction sees the account that it named with SET LOCAL app.account, and none without. (The setting reverts
-- to the empty string, not to NULL, when a transaction ends.)

ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON accounts
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE event_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON event_heads
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON api_keys
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE products ENABLE ROW LEVEL SECURITY;
ALTER TABLE products FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON products
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE prices ENABLE ROW LEVEL SECURITY;
ALTER TABLE prices FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON prices
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE test_clocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE test_clocks FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON test_clocks
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE customers FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON customers
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE books ENABLE ROW LEVEL SECURITY;
ALTER TABLE books FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON books
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE payment_methods ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_methods FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON payment_methods
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE balance_transactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE balance_transactions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON balance_transactions
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscriptions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON subscriptions
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoices FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON invoices
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE invoice_items ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoice_items FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON invoice_items
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE credit_notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE credit_notes FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON credit_notes
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE payment_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON payment_attempts
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE refunds ENABLE ROW LEVEL SECURITY;
ALTER TABLE refunds FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON refunds
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE test_gateway_charges ENABLE ROW LEVEL SECURITY;
ALTER TABLE test_gateway_charges FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON test_gateway_charges
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE test_gateway_refunds ENABLE ROW LEVEL SECURITY;
ALTER TABLE test_gateway_refunds FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON test_gateway_refunds
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON idempotency_keys
    USING (account_id = nullif(current_setting('app.account', true), ''));

ALTER TABLE events ENABLE ROW LEVEL SECURITY;
ALTER TABLE events FORCE ROW LEVEL SECURITY;
CREATE POLICY own_account ON events
    USING (account_id = nullif(current_setting('app.account', true), ''));

-- Finding the accounts that have work to do looks across accounts, at nothing but when books are due.
CREATE POLICY sweep ON accounts FOR SELECT USING (current_setting('app.sweep', true) = 'on');
CREATE POLICY sweep ON books FOR SELECT USING (current_setting('app.sweep', true) = 'on');
CREATE POLICY sweep ON test_clocks FOR SELECT USING (current_setting('app.sweep', true) = 'on');

-- Whoever presents an API key is not known yet: its hash alone makes its row visible.
CREATE POLICY presented ON api_keys FOR SELECT
    USING (secret_hash = decode(current_setting('app.key_hash', true), 'hex'));

GRANT USAGE ON SCHEMA public TO billing_app;
GRANT SELECT, INSERT, UPDATE ON
    accounts, event_heads, api_keys, products, prices, test_gateway_charges, test_gateway_refunds
    TO billing_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    test_clocks, customers, books, payment_methods, balance_transactions, subscriptions, invoices, invoice_items,
    credit_notes, payment_attempts, refunds, idempotency_keys
    TO billing_app;
-- Events are facts: appended, read, dropped when too old, never changed.
GRANT SELECT, INSERT, DELETE ON events TO billing_app;
