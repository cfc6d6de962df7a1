"""What subscriptions and their changes have to be like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.subscription import (
    AddedInvoiceItem,
    AnchorConfig,
    PauseCollection,
    PendingInvoiceItemInterval,
)
from billing_server.domain.validation import validate

NOW = 1_750_000_000
LATER = NOW + 86_400
TOO_LATE = NOW + 200 * 31_536_000

ITEMS = (c.ItemParams(price="price_1"),)
CREATE = c.CreateSubscription(customer="cus_1", items=ITEMS)
SENT: dict[str, Any] = {"collection_method": "send_invoice", "days_until_due": 30}
UPDATE = c.UpdateSubscription(id="sub_1")
CANCEL = c.CancelSubscription(id="sub_1")
RESUME = c.ResumeSubscription(id="sub_1")


def changed(**change: Any) -> dict[str, Any]:
    """A change of one item."""
    return {"items": (c.ItemChange(**change),)}


GOOD = [
    (CREATE, {}),
    (CREATE, {"items": (c.ItemParams(price="price_1", quantity=0), c.ItemParams(price="price_2", quantity=10**9))}),
    (CREATE, SENT),
    (CREATE, {**SENT, "days_until_due": 0, "trial_end": LATER}),
    (CREATE, {"billing_cycle_anchor": LATER, "backdate_start_date": NOW - 1}),
    (CREATE, {"billing_cycle_anchor_config": AnchorConfig(day_of_month=31, month=2, hour=23)}),
    (CREATE, {"trial_period_days": 14, "missing_payment_method": "pause", "cancel_at_period_end": True}),
    (CREATE, {"cancel_at": LATER, "payment_behavior": "error_if_incomplete"}),
    (CREATE, {"add_invoice_items": (AddedInvoiceItem(price="price_3"),) * 20}),
    (CREATE, {"pending_invoice_item_interval": PendingInvoiceItemInterval(interval="week")}),
    (UPDATE, {}),
    (UPDATE, changed(price="price_2")),
    (UPDATE, changed(id="si_1", deleted=True)),
    (UPDATE, {"payment_behavior": "pending_if_incomplete", **changed(id="si_1", quantity=5)}),
    (UPDATE, {"collection_method": "send_invoice"}),
    (UPDATE, {"collection_method": "charge_automatically", "days_until_due": None}),
    (UPDATE, {"cancel_at": None, "cancel_at_period_end": True}),
    (UPDATE, {"cancel_at": LATER, "cancel_at_period_end": False}),
    (UPDATE, {"trial_end_now": True, "billing_cycle_anchor_now": True}),
    (UPDATE, {"pause_collection": PauseCollection(behavior="void", resumes_at=LATER)}),
    (UPDATE, {"pause_collection": None, "description": None}),
    (CANCEL, {"comment": "too expensive", "invoice_now": True}),
    (RESUME, {"billing_cycle_anchor": "unchanged", "proration_date": NOW}),
]


@pytest.mark.parametrize(("command", "changes"), GOOD)
def test_good_commands_are_accepted(command: c.Command, changes: dict[str, Any]) -> None:
    validate(msgspec.structs.replace(command, **changes), NOW)


BAD = [
    (CREATE, {"customer": ""}, "customer", "parameter_missing"),
    (CREATE, {"items": ()}, "items", "parameter_invalid_empty"),
    (CREATE, {"items": ITEMS * 21}, "items", "parameter_invalid"),
    (CREATE, {"items": (c.ItemParams(price=""),)}, "items[0].price", "parameter_missing"),
    (
        CREATE,
        {"items": (*ITEMS, c.ItemParams(price="price_2", quantity=-1))},
        "items[1].quantity",
        "parameter_invalid_integer",
    ),
    (
        CREATE,
        {"items": (c.ItemParams(price="price_2", quantity=2**62),)},
        "items[0].quantity",
        "parameter_invalid_integer",
    ),
    (CREATE, {"collection_method": "send_invoice"}, "days_until_due", "parameter_missing"),
    (CREATE, {"days_until_due": 0}, "days_until_due", "parameters_exclusive"),
    (CREATE, {**SENT, "days_until_due": 3651}, "days_until_due", "parameter_invalid_integer"),
    (CREATE, {**SENT, "payment_behavior": "default_incomplete"}, "payment_behavior", "parameters_exclusive"),
    (CREATE, {**SENT, "missing_payment_method": "cancel"}, "missing_payment_method", "parameters_exclusive"),
    (CREATE, {"payment_behavior": "pending_if_incomplete"}, "payment_behavior", "parameter_invalid"),
    (CREATE, {"billing_cycle_anchor": TOO_LATE}, "billing_cycle_anchor", "time_out_of_range"),
    (
        CREATE,
        {"billing_cycle_anchor": LATER, "billing_cycle_anchor_config": AnchorConfig(day_of_month=1)},
        "billing_cycle_anchor_config",
        "parameters_exclusive",
    ),
    *(
        (
            CREATE,
            {"billing_cycle_anchor_config": AnchorConfig(**{"day_of_month": 1, name: value})},
            f"billing_cycle_anchor_config.{name}",
            "parameter_invalid_integer",
        )
        for name, value in (
            ("day_of_month", 0),
            ("day_of_month", 32),
            ("month", 13),
            ("hour", 24),
            ("minute", 60),
            ("second", -1),
        )
    ),
    (CREATE, {"backdate_start_date": 946_684_799}, "backdate_start_date", "time_out_of_range"),
    (CREATE, {"backdate_start_date": NOW, "trial_end": LATER}, "trial_end", "parameters_exclusive"),
    (CREATE, {"cancel_at": TOO_LATE}, "cancel_at", "time_out_of_range"),
    (CREATE, {"cancel_at": LATER, "cancel_at_period_end": True}, "cancel_at_period_end", "parameters_exclusive"),
    (CREATE, {"trial_end": TOO_LATE}, "trial_end", "time_out_of_range"),
    (CREATE, {"trial_period_days": 731}, "trial_period_days", "parameter_invalid_integer"),
    (CREATE, {"trial_end": LATER, "trial_period_days": 3}, "trial_period_days", "parameters_exclusive"),
    (CREATE, {"trial_end": LATER, "trial_from_plan": True}, "trial_from_plan", "parameters_exclusive"),
    (CREATE, {"default_payment_method": ""}, "default_payment_method", "parameter_invalid_empty"),
    (
        CREATE,
        {"add_invoice_items": (AddedInvoiceItem(price="price_3"),) * 21},
        "add_invoice_items",
        "parameter_invalid",
    ),
    (
        CREATE,
        {"add_invoice_items": (AddedInvoiceItem(price="price_3", quantity=-1),)},
        "add_invoice_items[0].quantity",
        "parameter_invalid_integer",
    ),
    (
        CREATE,
        {"pending_invoice_item_interval": PendingInvoiceItemInterval(interval="month", interval_count=37)},
        "pending_invoice_item_interval.interval_count",
        "parameter_invalid_integer",
    ),
    (CREATE, {"description": "4242-4242-4242-4242"}, "description", "card_number_refused"),
    (CREATE, {"metadata": {"k": "x" * 501}}, "metadata[k]", "metadata_invalid"),
    (UPDATE, {"id": ""}, "id", "parameter_missing"),
    (UPDATE, {"items": ()}, "items", "parameter_invalid_empty"),
    (UPDATE, changed(quantity=2), "items[0].price", "parameter_missing"),
    (UPDATE, changed(deleted=True), "items[0].id", "parameter_missing"),
    (UPDATE, changed(id="si_1", deleted=True, quantity=2), "items[0].quantity", "parameters_exclusive"),
    (UPDATE, changed(id="si_1", deleted=True, price="price_2"), "items[0].price", "parameters_exclusive"),
    (UPDATE, changed(id="si_1", quantity=-5), "items[0].quantity", "parameter_invalid_integer"),
    (UPDATE, changed(id="si_1", metadata={"": "x"}), "items[0].metadata", "metadata_invalid"),
    (UPDATE, {"items": (c.ItemChange(id="si_1"), c.ItemChange(id="si_1"))}, "items[1].id", "parameters_exclusive"),
    (UPDATE, {"proration_date": TOO_LATE}, "proration_date", "time_out_of_range"),
    (UPDATE, {"trial_end": LATER, "trial_end_now": True}, "trial_end_now", "parameters_exclusive"),
    (UPDATE, {"trial_end": LATER, "trial_from_plan": True}, "trial_from_plan", "parameters_exclusive"),
    (
        UPDATE,
        {"trial_end": LATER, "billing_cycle_anchor_now": True},
        "billing_cycle_anchor_now",
        "parameters_exclusive",
    ),
    (UPDATE, {"trial_end": None}, "trial_end", "parameter_invalid_empty"),
    (UPDATE, {"collection_method": "send_invoice", "days_until_due": None}, "days_until_due", "parameter_missing"),
    (
        UPDATE,
        {"collection_method": "charge_automatically", "days_until_due": 30},
        "days_until_due",
        "parameters_exclusive",
    ),
    (
        UPDATE,
        {"collection_method": "send_invoice", "payment_behavior": "pending_if_incomplete"},
        "payment_behavior",
        "parameters_exclusive",
    ),
    (
        UPDATE,
        {"collection_method": "send_invoice", "missing_payment_method": "pause"},
        "missing_payment_method",
        "parameters_exclusive",
    ),
    (UPDATE, {"cancel_at": LATER, "cancel_at_period_end": True}, "cancel_at_period_end", "parameters_exclusive"),
    (UPDATE, {"cancellation_comment": "x" * 501}, "cancellation_comment", "parameter_invalid"),
    (
        UPDATE,
        {"pause_collection": PauseCollection(behavior="void", resumes_at=1)},
        "pause_collection.resumes_at",
        "time_out_of_range",
    ),
    (CANCEL, {"id": ""}, "id", "parameter_missing"),
    (CANCEL, {"comment": "x" * 501}, "comment", "parameter_invalid"),
    (RESUME, {"id": ""}, "id", "parameter_missing"),
    (RESUME, {"proration_date": 0}, "proration_date", "time_out_of_range"),
]


@pytest.mark.parametrize(("command", "changes", "field", "reason"), BAD)
def test_bad_commands_are_refused(command: c.Command, changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(msgspec.structs.replace(command, **changes), NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [(field, reason)]


def test_three_ways_to_give_a_trial_are_two_too_many() -> None:
    command = msgspec.structs.replace(CREATE, trial_end=LATER, trial_period_days=3, trial_from_plan=True)
    with pytest.raises(InvalidArgument) as refused:
        validate(command, NOW)
    assert [violation.field for violation in refused.value.violations] == ["trial_period_days", "trial_from_plan"]
