"""Automations: when what happens, under which conditions, what is done about it, and the runs of that (semantics 8).

An automation is one of the account's pages; a run is a part of the customer's book, and its next step is one of the
book's moments. A run keeps the definition it started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from billing_server.domain.dunning import RetryPolicy

Trigger = Literal[
    "invoice_due_date_upcoming",
    "invoice_finalized",
    "invoice_overdue",
    "subscription_canceled",
    "subscription_payment_fails",
    "customer_created",
]
ConditionType = Literal[
    "customer_metadata",
    "customer_segment",
    "invoice_metadata",
    "invoice_amount",
    "subscription_amount",
    "subscription_interval",
    "product",
    "price",
]
ActionType = Literal[
    "start_retry_policy",
    "mark_subscription_unpaid",
    "cancel_subscription",
    "mark_invoice_uncollectible",
    "send_team_email",
    "send_cancellation_email",
    "send_invoice_will_be_due_webhook",
    "send_invoice_overdue_webhook",
    "create_subscription",
    "credit_customer_balance",
]
BillingInterval = Literal["monthly", "yearly"]
RunStatus = Literal["running", "completed", "terminated", "canceled", "failed"]
EndReason = Literal[
    "completed",
    "invoice_paid",
    "invoice_voided",
    "auto_advance_disabled",
    "subscription_canceled",
    "canceled_by_user",
    "error",
]
StepResult = Literal["done", "skipped", "failed", "retrying"]

TRIGGERS: Final[tuple[Trigger, ...]] = (
    "invoice_due_date_upcoming",
    "invoice_finalized",
    "invoice_overdue",
    "subscription_canceled",
    "subscription_payment_fails",
    "customer_created",
)

_INVOICES: Final[frozenset[Trigger]] = frozenset(
    {"invoice_due_date_upcoming", "invoice_finalized", "invoice_overdue", "subscription_payment_fails"}
)
_ANY: Final[frozenset[Trigger]] = frozenset(TRIGGERS)
_PAYMENT_FAILS: Final[frozenset[Trigger]] = frozenset({"subscription_payment_fails"})
_CUSTOMER_CREATED: Final[frozenset[Trigger]] = frozenset({"customer_created"})

CONDITION_TRIGGERS: Final[Mapping[ConditionType, frozenset[Trigger]]] = {
    "customer_metadata": _ANY,
    "customer_segment": _ANY,
    "invoice_metadata": _INVOICES,
    "invoice_amount": _INVOICES,
    "subscription_amount": _ANY - _CUSTOMER_CREATED,
    "subscription_interval": _ANY - _CUSTOMER_CREATED,
    "product": _ANY - _CUSTOMER_CREATED,
    "price": _ANY - _CUSTOMER_CREATED,
}
"""The triggers that each condition goes with (semantics 8.2)."""

ACTION_TRIGGERS: Final[Mapping[ActionType, frozenset[Trigger]]] = {
    "start_retry_policy": _PAYMENT_FAILS,
    "mark_subscription_unpaid": _PAYMENT_FAILS,
    "cancel_subscription": _PAYMENT_FAILS,
    "mark_invoice_uncollectible": frozenset({"invoice_finalized", "invoice_overdue", "subscription_payment_fails"}),
    "send_team_email": _ANY,
    "send_cancellation_email": frozenset({"subscription_canceled"}),
    "send_invoice_will_be_due_webhook": frozenset({"invoice_due_date_upcoming"}),
    "send_invoice_overdue_webhook": frozenset({"invoice_overdue"}),
    "create_subscription": _CUSTOMER_CREATED,
    "credit_customer_balance": _CUSTOMER_CREATED,
}
"""The triggers that each action goes with (semantics 8.3)."""

SEGMENT_KEY: Final = "segment"
"""The key of customers' metadata whose value is their segment."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must hold for an automation to run. Each type uses the fields it needs.

    `customer_metadata` and `invoice_metadata` compare `key` and `value`. `customer_segment` wants the customer's
    metadata `segment` to be one of `segments`. Amounts are strictly between `more_than` and `less_than` (either may
    be left out), in minor units of the account's default currency: `invoice_amount` is the invoice's `amount_due`,
    `subscription_amount` what one period of the subscription costs. `product` and `price` want at least one of
    theirs on the invoice, or else on the subscription.
    """

    type: ConditionType
    key: str | None = None
    value: str | None = None
    more_than: int | None = None
    less_than: int | None = None
    interval: BillingInterval | None = None
    products: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to do. Each type uses the fields it needs.

    `delay_seconds` counts from the end of the action before, for the first from the trigger. Actions of
    `invoice_due_date_upcoming` have `before_due_seconds` instead: so long before the due date they happen.
    `amount` is a credit in minor units of `currency`.
    """

    type: ActionType
    delay_seconds: int = 0
    before_due_seconds: int | None = None
    retry_policy: RetryPolicy | None = None
    recipients: tuple[str, ...] = ()
    memo: str | None = None
    survey_url: str | None = None
    price: str | None = None
    quantity: int | None = None
    amount: int | None = None
    currency: str | None = None


class Automation(msgspec.Struct, frozen=True, kw_only=True):
    """What an account wants done when something happens.

    Of the enabled automations of a trigger, the one with the lowest `priority` whose conditions all hold runs, and
    no other. `runs_canceled_version`: runs of this version and of earlier ones were told to end. A deleted one is
    kept for its runs, but never starts another.
    """

    id: str
    created: int
    name: str
    enabled: bool = True
    trigger: Trigger
    priority: int
    conditions: tuple[Condition, ...] = ()
    actions: tuple[Action, ...]
    recipe: str | None = None
    runs_canceled_version: int = 0
    deleted: bool = False
    metadata: dict[str, str] = {}
    version: int = 1


class RunStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action that a run came to: when it was to happen, when it began and ended, and what became of it.

    `retrying` says that a retry policy is under way; `explanation` why an action was skipped or failed.
    """

    type: ActionType
    scheduled_at: int
    executed_at: int
    ended_at: int | None = None
    result: StepResult
    explanation: str | None = None


class AutomationRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an automation, about one invoice, subscription or customer.

    `actions` are those of the `automation_version` that it started with. `step` is the index of
    the next action, which happens at `next_action_at`; it is None while a retry policy is under way, whose tries so
    far are `retries_done` since `retrying_since`.
    """

    id: str
    created: int
    automation: str
    automation_version: int
    name: str
    trigger: Trigger
    trigger_event: str
    customer: str
    invoice: str | None = None
    subscription: str | None = None
    status: RunStatus = "running"
    end_reason: EndReason | None = None
    ended_at: int | None = None
    actions: tuple[Action, ...]
    step: int = 0
    next_action_at: int | None
    retrying_since: int | None = None
    retries_done: int = 0
    steps: tuple[RunStep, ...] = ()
    test_clock: str | None = None
    version: int = 1

    @property
    def ended(self) -> bool:
        """Whether it does nothing any more."""
        return self.status != "running"

    @property
    def retrying(self) -> bool:
        """Whether a retry policy of it is under way."""
        return self.retrying_since is not None


def wake_at(run: AutomationRun) -> int | None:
    """The moment of the run's next action; None when it has ended or waits for a retry policy."""
    return None if run.ended else run.next_action_at
