"""Previews: the invoice that a request would make is the one that it then makes, and nothing of a preview is kept."""

from __future__ import annotations

from typing import Any

import pytest

from billing.v1.event_service_pb2 import ListEventsRequest
from billing.v1.invoice_model_pb2 import Invoice
from billing_client import BillingClient, WrongState
from tests.scenarios.world import OK, World, word

Fields = dict[str, Any]

PAUSED: Fields = {"trial_period_days": 14, "missing_payment_method": "pause"}


async def _preview(world: World, **wanted: Any) -> Invoice:
    made = await world.call("subscriptions", "PreviewSubscriptionInvoice", **wanted)
    assert isinstance(made, Invoice)
    assert (word(made, "status"), word(made, "billing_reason"), made.number) == ("draft", "upcoming", "")
    return made


def _shown(invoice: Any) -> list[Any]:
    """What a preview must get right: the lines to the cent and second, the sums, and what the balance takes."""
    lines = [(line.amount, line.period_start.seconds, line.period_end.seconds) for line in invoice.lines]
    return [*lines, invoice.total, invoice.starting_balance, invoice.amount_due]


async def _head(world: World) -> int:
    return (await world.client.event_log.ListEvents(ListEventsRequest(page_size=1))).events[0].position


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trial_period_days": 14},
        {"billing_cycle_anchor": "2025-01-20"},
        {"backdate_start_date": "2024-11-15"},
        {"cancel_at": "2025-01-11"},
        {"payment_behavior": "error_if_incomplete"},
        {"payment_behavior": "default_incomplete"},
        {"collection_method": "send_invoice", "days_until_due": 10},
    ],
    ids=str,
)
@pytest.mark.parametrize("balance", [0, -1000])
async def test_of_a_new_subscription(client: BillingClient, fields: Fields, balance: int) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer()
    if balance:
        await world.call("customers", "AdjustBalance", customer=customer, amount=balance, currency="usd")
    wanted: Fields = {"customer": customer, "items": [{"price": await world.price(3100), "quantity": 2}], **fields}
    head = await _head(world)
    preview = await _preview(world, create=wanted)
    assert await _head(world) == head, "a preview wrote something"
    made = await world.call("subscriptions", "CreateSubscription", **wanted)
    invoice = await world.latest(made.id)
    if word(invoice, "status") == "draft":
        await world.advance("2025-01-01T01:00")
        invoice = await world.latest(made.id)
    assert _shown(preview) == _shown(invoice)


async def test_of_a_new_subscription_whose_first_days_are_free(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price = await world.price(3100)
    wanted: Fields = {
        "customer": await world.customer(),
        "items": [{"price": price}],
        "billing_cycle_anchor": "2025-01-20",
        "proration_behavior": "none",
    }
    preview = await _preview(world, create=wanted)
    made = await world.call("subscriptions", "CreateSubscription", **wanted)
    await world.advance("2025-01-20T01:00")
    assert _shown(preview) == _shown(await world.latest(made.id))


@pytest.mark.parametrize("proration", ["create_prorations", "always_invoice", "none"])
@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 5},
        {"trial_end": "2025-02-10"},
        {"billing_cycle_anchor_now": True},
        {"cancel_at": "2025-02-15"},
        {"cancel_at": "2025-01-25"},
        {"add_invoice_items": True},
        {"quantity": 3, "payment_behavior": "pending_if_incomplete"},
        {"quantity": 3, "payment_behavior": "error_if_incomplete"},
        {"quantity": 3, "proration_date": "2025-01-06"},
    ],
    ids=str,
)
async def test_of_a_change(client: BillingClient, change: Fields, proration: str) -> None:
    """What it bills at once, else at the next renewal, or in the end."""
    world = await World.begin(client, "2025-01-01")
    made = await world.subscribe(await world.customer(), await world.price(3100))
    await world.advance("2025-01-11")
    wanted: Fields = {"id": made.id, "proration_behavior": proration, **change}
    if "quantity" in wanted:
        wanted["items"] = [{"id": made.items[0].id, "quantity": wanted.pop("quantity")}]
    if "add_invoice_items" in wanted:
        wanted["add_invoice_items"] = [{"price": await world.one_time(700)}]
    head, known = await _head(world), len(await world.invoices(made.id))
    ends = change.get("cancel_at") == "2025-01-25" and proration != "always_invoice"
    if ends:
        with pytest.raises(WrongState) as refused:
            await _preview(world, update=wanted)
        assert refused.value.reason == "INVOICE_UPCOMING_NONE"
        return
    preview = await _preview(world, update=wanted)
    assert await _head(world) == head, "a preview wrote something"
    await world.call("subscriptions", "UpdateSubscription", **wanted)
    if len(await world.invoices(made.id)) == known:
        await world.advance("2025-02-10T01:00")
    assert _shown(preview) == _shown((await world.invoices(made.id))[known])


@pytest.mark.parametrize("anchor", ["now", "unchanged"])
@pytest.mark.parametrize("proration", ["create_prorations", "always_invoice", "none"])
async def test_of_a_resumption(client: BillingClient, anchor: str, proration: str) -> None:
    world = await World.begin(client, "2025-03-01")
    customer = await world.customer(None)
    made = await world.subscribe(customer, await world.price(3100), **PAUSED)
    await world.advance("2025-04-10T12:00")
    await world.card(customer, OK)
    wanted: Fields = {"id": made.id, "billing_cycle_anchor": anchor, "proration_behavior": proration}
    head, known = await _head(world), len(await world.invoices(made.id))
    preview = await _preview(world, resume=wanted)
    assert await _head(world) == head, "a preview wrote something"
    assert await world.status(made.id) == "paused"
    await world.call("subscriptions", "ResumeSubscription", **wanted)
    at_once = anchor == "now" or proration == "always_invoice"
    assert (len(await world.invoices(made.id)) > known) == at_once
    if not at_once:
        await world.advance("2025-04-15T01:00")
    assert _shown(preview) == _shown((await world.invoices(made.id))[known])


async def test_of_a_cancellation(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await world.subscribe(await world.customer(), await world.price(3100))
    await world.advance("2025-01-11")
    wanted: Fields = {"id": made.id, "invoice_now": True, "prorate": True}
    preview = await _preview(world, cancel=wanted)
    await world.call("subscriptions", "CancelSubscription", **wanted)
    assert _shown(preview) == _shown(await world.latest(made.id))
    assert preview.total == -2100
    with pytest.raises(WrongState):
        await _preview(world, subscription=made.id)
