"""What subscriptions and their changes have to be like (semantics 1, 2 and 4)."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from billing_server.domain import commands as c
from billing_server.domain.items import ITEMS_MAX
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    PauseCollection,
    PendingInvoiceItemInterval,
)
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.catalog import period_length
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each, exclusive, is_given, nested

ADDED_ITEMS_MAX: Final = 20
"""One-off prices in one request (semantics 4)."""

ITEM: Final = Shape(c.ItemParams, {"price": text.ID, "quantity": numbers.QUANTITY, "metadata": text.metadata})
ADDED_ITEM: Final = Shape(AddedInvoiceItem, {"price": text.ID, "quantity": numbers.QUANTITY})
ANCHOR_CONFIG: Final = Shape(
    AnchorConfig,
    {
        "day_of_month": numbers.whole(1, 31),
        "month": numbers.whole(1, 12),
        "hour": numbers.whole(0, 23),
        "minute": numbers.whole(0, 59),
        "second": numbers.whole(0, 59),
    },
)
PAUSE: Final = Shape(PauseCollection, {"resumes_at": numbers.instant})
ITEM_INTERVAL: Final = Shape(PendingInvoiceItemInterval, None, period_length)


def _one_change(change: c.ItemChange, findings: Findings) -> None:
    """Either an item that is named is changed or deleted, or a new one comes with its price."""
    if change.id is None:
        if change.deleted:
            findings.add("id", "parameter_missing", "name the item that is to be deleted")
        elif change.price is None:
            findings.add("price", "parameter_missing", "a new item needs a price; to change an item give its id")
    elif change.deleted:
        for name in ("price", "quantity"):
            if getattr(change, name) is not None:
                findings.add(name, "parameters_exclusive", "not together with deleted; change the item or delete it")


ITEM_CHANGE: Final = Shape(
    c.ItemChange,
    {"id": text.ID, "price": text.ID, "quantity": numbers.QUANTITY, "metadata": text.metadata},
    _one_change,
)


def _each_item_once(command: c.UpdateSubscription, findings: Findings) -> None:
    if command.items is UNSET or len(command.items) < 2:
        return
    seen: set[str] = set()
    for index, change in enumerate(command.items):
        if change.id in seen:
            findings.add(f"items[{index}].id", "parameters_exclusive", "the same item is changed twice; name it once")
        if change.id is not None:
            seen.add(change.id)


def due_days(command: Any, findings: Findings) -> None:
    """`send_invoice` has days until due, `charge_automatically` has none; unset fields are judged with the state."""
    method, days = command.collection_method, command.days_until_due
    if method == "send_invoice" and days is None:
        findings.add("days_until_due", "parameter_missing", "collection_method=send_invoice needs it")
    elif method == "charge_automatically" and is_given(days):
        findings.add(
            "days_until_due",
            "parameters_exclusive",
            "not together with collection_method=charge_automatically, which has no due date; leave it out",
        )


_ONLY_WHEN_CHARGED: Final = {"payment_behavior": "allow_incomplete", "missing_payment_method": "create_invoice"}
"""Fields that mean something only with `charge_automatically`, and what they otherwise have to be."""


def _charged_only(command: Any, findings: Findings) -> None:
    if command.collection_method != "send_invoice":
        return
    for name, default in _ONLY_WHEN_CHARGED.items():
        if getattr(command, name) not in (default, UNSET):
            findings.add(
                name,
                "parameters_exclusive",
                "not together with collection_method=send_invoice, where nothing is charged; leave it out",
            )


def _no_pending_creation(command: c.CreateSubscription, findings: Findings) -> None:
    if command.payment_behavior == "pending_if_incomplete":
        findings.add(
            "payment_behavior",
            "parameter_invalid",
            "pending_if_incomplete is for updates; use default_incomplete or error_if_incomplete",
        )


def _no_backdated_trial(command: c.CreateSubscription, findings: Findings) -> None:
    if command.backdate_start_date is None:
        return
    for name in ("trial_end", "trial_period_days", "trial_from_plan"):
        if is_given(getattr(command, name)):
            findings.add(name, "parameters_exclusive", "not together with backdate_start_date: trials begin now")


_ONE_CANCELLATION: Final = exclusive(
    "cancel_at", "cancel_at_period_end", way_out="say either when, or at the end of the period"
)

SHAPES: Final = (
    Shape(
        c.CreateSubscription,
        {
            "customer": text.ID,
            "items": each(ITEM, least=1, most=ITEMS_MAX),
            "currency": numbers.currency,
            "days_until_due": numbers.DAYS_UNTIL_DUE,
            "billing_cycle_anchor": numbers.instant,
            "billing_cycle_anchor_config": nested(ANCHOR_CONFIG),
            "backdate_start_date": numbers.instant,
            "cancel_at": numbers.instant,
            "trial_end": numbers.instant,
            "trial_period_days": numbers.TRIAL_DAYS,
            "default_payment_method": text.ID,
            "add_invoice_items": each(ADDED_ITEM, most=ADDED_ITEMS_MAX),
            "pending_invoice_item_interval": nested(ITEM_INTERVAL),
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
        },
        due_days,
        _charged_only,
        _no_pending_creation,
        _no_backdated_trial,
        _ONE_CANCELLATION,
        exclusive("trial_end", "trial_period_days", "trial_from_plan", way_out="say in one way how long it lasts"),
        exclusive("billing_cycle_anchor", "billing_cycle_anchor_config", way_out="give the instant or the day"),
    ),
    Shape(
        c.UpdateSubscription,
        {
            "id": text.ID,
            "items": each(ITEM_CHANGE, least=1, most=2 * ITEMS_MAX),
            "proration_date": numbers.instant,
            "trial_end": numbers.instant,
            "days_until_due": numbers.DAYS_UNTIL_DUE,
            "cancel_at": numbers.instant,
            "cancellation_comment": text.DESCRIPTION,
            "pause_collection": nested(PAUSE),
            "default_payment_method": text.ID,
            "add_invoice_items": each(ADDED_ITEM, most=ADDED_ITEMS_MAX),
            "pending_invoice_item_interval": nested(ITEM_INTERVAL),
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
            "etag": text.ID,
        },
        _each_item_once,
        due_days,
        _charged_only,
        _ONE_CANCELLATION,
        exclusive("trial_end", "trial_end_now", "trial_from_plan", way_out="say in one way when the trial ends"),
        exclusive("trial_end", "billing_cycle_anchor_now", way_out="the end of a trial is the new anchor"),
    ),
    Shape(c.CancelSubscription, {"id": text.ID, "comment": text.DESCRIPTION}),
    Shape(c.ResumeSubscription, {"id": text.ID, "proration_date": numbers.instant}),
)
