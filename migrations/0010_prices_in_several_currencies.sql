-- billing: expands
-- What a price costs in other currencies than its own.
-- A program of the release before makes prices without options, and does not see those there are: it would renew at the
-- price's own amount. So create the first price with options when all servers are of this release.

ALTER TABLE prices ADD COLUMN currency_options jsonb NOT NULL DEFAULT '[]';

CREATE TYPE price_row_2 AS (
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
    currency_options jsonb,
    metadata jsonb,
    version bigint
);
