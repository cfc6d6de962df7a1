"""E-mail messages: what customers and the company's team are told, and how far the telling has come.

A message is staged in the transaction that causes it and holds all facts that its text needs, so that sending it
later, perhaps twice, reads nothing else and always says the same (promise 21).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from billing_server.domain.subscription import CollectionMethod

MessageKind = Literal[
    "trial_reminder",
    "receipt",
    "invoice_to_pay",
    "payment_failed",
    "upcoming_renewal",
    "cancellation_confirmation",
    "team_memo",
]
MessageState = Literal["due", "sent", "failed"]


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message tells, as it was when the message was caused. Each kind uses the facts it needs.

    `amount` is minor units of `currency`. `moment` is the instant that the message is about: the end of the trial,
    the renewal, the payment, the due date, the end of the subscription. `page_url` leads to the company's own page
    for paying and for payment methods. `ends` says that nothing follows the trial. `has_method` says whether there
    is a payment method to charge; `needs_action` that the customer must confirm a payment.
    """

    company: str = ""
    customer_name: str | None = None
    plan: str | None = None
    subscription: str | None = None
    invoice: str | None = None
    invoice_number: str | None = None
    amount: int | None = None
    currency: str | None = None
    moment: int | None = None
    next_attempt: int | None = None
    collection_method: CollectionMethod = "charge_automatically"
    card_brand: str | None = None
    card_last4: str | None = None
    statement_descriptor: str | None = None
    trial_over: bool = False
    ends: bool = False
    has_method: bool = False
    needs_action: bool = False
    page_url: str | None = None
    cancellation_policy_url: str | None = None
    survey_url: str | None = None
    memo: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One e-mail to one recipient.

    `created` is engine or test-clock time, `created_real` and everything about delivery real time. While it is
    `due`, it is tried at `due_at`; `attempts` counts the tries begun, `error` is what the last one met with.
    """

    id: str
    created: int
    created_real: int
    customer: str
    kind: MessageKind
    recipient: str
    locale: str | None = None
    test_clock: str | None = None
    facts: Facts
    state: MessageState = "due"
    due_at: int | None
    attempts: int = 0
    settled_at: int | None = None
    error: str | None = None
