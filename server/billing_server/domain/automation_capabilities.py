"""What automations can be made of, as data: the words and bounds from which a user interface can be built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from billing_server.domain.automation import ActionType, ConditionType, EndReason, Trigger

TRIGGER_WORDS: Final[Mapping[Trigger, str]] = {
    "invoice_due_date_upcoming": "An invoice that is sent will be due; actions happen before its due date.",
    "invoice_finalized": "An invoice that advances automatically was finalized.",
    "invoice_overdue": "The due date of an invoice that was sent has passed, and it is not paid.",
    "subscription_canceled": "A subscription has ended, whatever the reason.",
    "subscription_payment_fails": "The first attempt to charge an invoice of a subscription failed.",
    "customer_created": "A customer was created.",
}

_INVOICE_ENDS: Final[tuple[EndReason, ...]] = ("invoice_paid", "invoice_voided", "auto_advance_disabled")

TRIGGER_ENDS: Final[Mapping[Trigger, tuple[EndReason, ...]]] = {
    "invoice_due_date_upcoming": _INVOICE_ENDS,
    "invoice_finalized": _INVOICE_ENDS,
    "invoice_overdue": _INVOICE_ENDS,
    "subscription_canceled": (),
    "subscription_payment_fails": (*_INVOICE_ENDS, "subscription_canceled"),
    "customer_created": (),
}
"""What ends the runs of each trigger before their last action (semantics 8.1); every run can be ended by its user."""

RUN_ENDING_ACTIONS: Final[frozenset[ActionType]] = frozenset({"cancel_subscription", "mark_invoice_uncollectible"})
"""Actions with which a run ends, after those that follow without a delay (semantics 8.4)."""

CONDITION_WORDS: Final[Mapping[ConditionType, str]] = {
    "customer_metadata": "The customer's metadata has a key with a value.",
    "customer_segment": "The customer's metadata has under 'segment' one of some segments.",
    "invoice_metadata": "The invoice's metadata has a key with a value.",
    "invoice_amount": "The invoice's amount due lies between two bounds, neither of them included.",
    "subscription_amount": "What a period of the subscription costs lies between two bounds, neither included.",
    "subscription_interval": "The subscription is billed monthly, or yearly.",
    "product": "At least one of some products is on the invoice, or else on the subscription.",
    "price": "At least one of some prices is on the invoice, or else on the subscription.",
}

ACTION_WORDS: Final[Mapping[ActionType, str]] = {
    "start_retry_policy": "Tries the payment again; the next action waits for the last try.",
    "mark_subscription_unpaid": "Makes the subscription unpaid: later invoices stay drafts.",
    "cancel_subscription": "Cancels the subscription at once.",
    "mark_invoice_uncollectible": "Makes the invoice uncollectible.",
    "send_team_email": "Sends an e-mail to people of the company.",
    "send_cancellation_email": "Confirms the cancellation to the customer.",
    "send_invoice_will_be_due_webhook": "Tells the event invoice.will_be_due.",
    "send_invoice_overdue_webhook": "Tells the event invoice.overdue.",
    "create_subscription": "Creates a subscription for the customer.",
    "credit_customer_balance": "Gives the customer a credit, which pays for invoices to come.",
}

_MORE_THAN: Final = "The amount must be above this, in minor units of the account's default currency."
_LESS_THAN: Final = "The amount must be below this, in minor units of the account's default currency."

PARAMETER_WORDS: Final[Mapping[str, str]] = {
    "key": "The key in the metadata.",
    "value": "The value that the key must have.",
    "segments": "The segments, 1 to 100.",
    "more_than": f"{_MORE_THAN} At least one bound is needed.",
    "less_than": f"{_LESS_THAN} At least one bound is needed.",
    "interval": "Monthly or yearly.",
    "products": "Ids of products, 1 to 100.",
    "prices": "Ids of prices, 1 to 100.",
    "retry_policy": "When the payment is tried again.",
    "recipients": "E-mail addresses on the company's domain or among its team users, 1 to 20.",
    "memo": "What the e-mail says.",
    "survey_url": "An https address where the customer may say why.",
    "price": "Id of an active recurring price.",
    "quantity": "How many units; default 1.",
    "amount": "The credit, at least 1, in minor units of the currency.",
    "currency": "The credit's currency, such as usd.",
}
