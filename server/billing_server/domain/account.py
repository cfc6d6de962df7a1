"""The account and its settings: what holds unless a command or an automation says otherwise."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from billing_server.domain.dunning import DEFAULT_RETRY_POLICY, RetryPolicy

SubscriptionFinalAction = Literal["cancel", "unpaid", "past_due"]
InvoiceFinalAction = Literal["leave_open", "uncollectible", "void"]


class OverduePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to `send_invoice` invoices that stay unpaid `days_after_due` days past their due date.

    `days_after_due=None` leaves everything as it is (semantics 6).
    """

    days_after_due: int | None = None
    subscription_action: SubscriptionFinalAction = "past_due"
    invoice_action: InvoiceFinalAction = "leave_open"


class EmailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages customers receive."""

    trial_reminder: bool = True
    upcoming_renewal: bool = False
    receipt: bool = True
    invoice: bool = True
    payment_failed: bool = True
    cancellation_policy_url: str | None = None
    billing_page_url: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """An account's settings (semantics 1, last row). Changes apply to what is scheduled after them."""

    default_currency: str = "usd"
    exchange_rates: dict[str, Decimal] = {}
    company_name: str | None = None
    company_domain: str | None = None
    team_users: tuple[str, ...] = ()
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY
    one_off_retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY
    subscription_final_action: SubscriptionFinalAction = "cancel"
    invoice_final_action: InvoiceFinalAction = "leave_open"
    one_off_invoice_final_action: InvoiceFinalAction = "leave_open"
    overdue_policy: OverduePolicy = OverduePolicy()
    upcoming_renewal_days: int = 7
    finalization_delay_seconds: int = 3600
    statement_descriptor: str | None = None
    emails: EmailSettings = EmailSettings()


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: everything else belongs to exactly one account."""

    id: str
    created: int
    name: str
    settings: Settings = Settings()
    version: int = 1


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key's record. The secret itself is shown once and never kept; only its hash is."""

    id: str
    created: int
    name: str
    scopes: tuple[str, ...]
    last_four: str
    revoked_at: int | None = None
    version: int = 1
