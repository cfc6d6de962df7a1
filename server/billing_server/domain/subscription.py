"""The subscription: its shape, its statuses, and the next moment at which time alone changes it."""

from __future__ import annotations

from typing import Literal

import msgspec

from billing_server.domain.calendar import Interval

SubscriptionStatus = Literal[
    "incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"
]
CollectionMethod = Literal["charge_automatically", "send_invoice"]
BillingMode = Literal["classic", "flexible"]
PaymentBehavior = Literal["allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"]
ProrationBehavior = Literal["create_prorations", "always_invoice", "none"]
CancellationReason = Literal["cancellation_requested", "payment_failed", "payment_disputed"]
CancellationFeedback = Literal[
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
]
MissingPaymentMethod = Literal["create_invoice", "cancel", "pause"]
PauseBehavior = Literal["void", "keep_as_draft", "mark_uncollectible"]
SaveDefaultPaymentMethod = Literal["off", "on_subscription"]

TERMINAL: frozenset[SubscriptionStatus] = frozenset({"canceled", "incomplete_expired"})
"""Statuses that are never left (semantics 2.1)."""

BILLED: frozenset[SubscriptionStatus] = frozenset({"trialing", "active", "past_due", "unpaid"})
"""Statuses in which the billing cycle moves."""

INCOMPLETE_LIFETIME_SECONDS = 82_800
"""An incomplete subscription, a pending update and a resumption invoice live for 23 hours (semantics 2.2)."""


class SubscriptionItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One price of a subscription. `quantity` is None for metered prices.

    `usage_from` is when usage began to count for a metered item that was added, put on another meter or resumed
    within a period; None: with the period.
    """

    id: str
    created: int
    price: str
    quantity: int | None = 1
    metadata: dict[str, str] = {}
    usage_from: int | None = None


class AnchorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The wished day of the billing cycle; what is left out is taken from the creation time."""

    day_of_month: int
    month: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None


class CancellationDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a subscription was or will be canceled."""

    comment: str | None = None
    feedback: CancellationFeedback | None = None
    reason: CancellationReason | None = None


class PauseCollection(msgspec.Struct, frozen=True, kw_only=True):
    """Collection stands still for invoices created before `resumes_at`, or until unset (semantics 7)."""

    behavior: PauseBehavior
    resumes_at: int | None = None


class PendingInvoiceItemInterval(msgspec.Struct, frozen=True, kw_only=True):
    """How often pending invoice items are billed on invoices of their own."""

    interval: Interval
    interval_count: int = 1


class AddedInvoiceItem(msgspec.Struct, frozen=True, kw_only=True):
    """A one-off price that rides on the next invoice of a subscription (`add_invoice_items`)."""

    price: str
    quantity: int = 1


class PendingUpdate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change that waits for the payment of `invoice` (semantics 2.4)."""

    expires_at: int
    invoice: str
    subscription_items: tuple[SubscriptionItem, ...] = ()
    billing_cycle_anchor: int | None = None
    trial_end: int | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None
    interval: Interval | None = None
    interval_count: int | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """An agreement to be billed for items, period by period (semantics 1, 2 and 4).

    `interval` and `interval_count` are those of the items, which share them. The `…_at` fields at the end
    are moments still to come; they are None when nothing of that kind is ahead. `status_invoice` is the most
    recent invoice that counts for the status: not void, not born paused, not of a pending update. `free_stub`
    tells that the days between trial and anchor are not billed (`proration_behavior=none`), `trial_over_untold` that
    its trial has ended and no invoice has asked for money since.
    """

    id: str
    created: int
    customer: str
    status: SubscriptionStatus
    currency: str
    items: tuple[SubscriptionItem, ...]
    interval: Interval
    interval_count: int
    collection_method: CollectionMethod = "charge_automatically"
    days_until_due: int | None = None
    start_date: int
    billing_cycle_anchor: int
    billing_cycle_anchor_config: AnchorConfig | None = None
    billing_mode: BillingMode = "classic"
    current_period_start: int
    current_period_end: int
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    cancellation_details: CancellationDetails = CancellationDetails()
    trial_start: int | None = None
    trial_end: int | None = None
    missing_payment_method: MissingPaymentMethod = "create_invoice"
    pause_collection: PauseCollection | None = None
    default_payment_method: str | None = None
    save_default_payment_method: SaveDefaultPaymentMethod = "off"
    off_session: bool = False
    description: str | None = None
    latest_invoice: str | None = None
    schedule: str | None = None
    first_invoice: str | None = None
    status_invoice: str | None = None
    resumption_invoice: str | None = None
    pending_update: PendingUpdate | None = None
    pending_invoice_item_interval: PendingInvoiceItemInterval | None = None
    next_pending_invoice_item_invoice: int | None = None
    metadata: dict[str, str] = {}
    test_clock: str | None = None
    expires_at: int | None = None
    trial_will_end_at: int | None = None
    trial_reminder_at: int | None = None
    upcoming_at: int | None = None
    free_stub: bool = False
    trial_over_untold: bool = False
    version: int = 1

    @property
    def terminal(self) -> bool:
        """Whether nothing but metadata and cancellation details may change any more."""
        return self.status in TERMINAL

    def paused_at(self, moment: int) -> bool:
        """Whether an invoice created at `moment` is born paused (semantics 7)."""
        pause = self.pause_collection
        return pause is not None and (pause.resumes_at is None or moment < pause.resumes_at)


def wake_at(subscription: Subscription) -> int | None:
    """The next moment at which time alone changes the subscription, or None when there is none."""
    if subscription.status in TERMINAL:
        return None
    moments = [subscription.cancel_at, subscription.expires_at]
    if subscription.pause_collection is not None:
        moments.append(subscription.pause_collection.resumes_at)
    if subscription.pending_update is not None:
        moments.append(subscription.pending_update.expires_at)
    if subscription.status in BILLED:
        moments += (
            subscription.current_period_end,
            subscription.upcoming_at,
            subscription.trial_will_end_at,
            subscription.trial_reminder_at,
            subscription.next_pending_invoice_item_invoice,
        )
    return min([moment for moment in moments if moment is not None], default=None)
