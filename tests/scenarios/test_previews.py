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
    if change.get("cancel_at") == "2025-01-25" and proration == "none":
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


@pytest.mark.parametrize("end", [{"cancel_at_period_end": True}, {"cancel_at": "2025-01-28T06:00"}], ids=str)
@pytest.mark.parametrize("left", ["prorations", "item", "usage", "nothing"])
async def test_of_a_subscription_that_ends_with_its_period(client: BillingClient, left: str, end: Fields) -> None:
    """What it leaves over is billed in the end, and nothing else: the items of others wait for other invoices."""
    world = await World.begin(client, "2025-01-01")
    customer, meter = await world.customer(), await world.meter()
    prices = [await world.price(3100), *([await world.metered(meter)] if left == "usage" else [])]
    made = await world.subscribe(customer, *prices)
    await world.advance("2025-01-11")
    if left == "prorations":
        await world.update(made.id, items=[{"id": made.items[0].id, "quantity": 3}])
    elif left == "item":
        await world.call(
            "invoices", "CreateInvoiceItem", customer=customer, subscription=made.id, amount=700, currency="usd"
        )
    elif left == "usage":
        await world.use(customer, 17, "2025-01-10")
    await world.call("invoices", "CreateInvoiceItem", customer=customer, amount=55, currency="usd")
    await world.update(made.id, proration_behavior="none", **end)
    known = len(await world.invoices(made.id))
    if left == "nothing":
        with pytest.raises(WrongState, match="nothing is left to bill") as refused:
            await _preview(world, subscription=made.id)
        assert refused.value.reason == "INVOICE_UPCOMING_NONE"
    else:
        preview = await _preview(world, subscription=made.id)
        await world.advance("2025-02-01")
        (final,) = (await world.invoices(made.id))[known:]
        assert _shown(preview) == _shown(final)
        assert preview.next_payment_attempt == preview.created == final.created


@pytest.mark.parametrize("then", ["cancel", "pause", "create_invoice"])
async def test_of_a_trial_that_nobody_can_pay_for(client: BillingClient, then: str) -> None:
    """S3: no next invoice is shown of one that will be canceled or paused; a payment method changes that."""
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(None)
    trial: Fields = {"trial_period_days": 14, "missing_payment_method": then}
    made = await world.subscribe(customer, await world.price(3100), **trial)
    if then != "create_invoice":
        with pytest.raises(WrongState, match="attach a payment method") as refused:
            await _preview(world, subscription=made.id)
        assert refused.value.reason == "INVOICE_UPCOMING_NONE"
        await world.update(made.id, pause_collection={"behavior": "void", "resumes_at": "2025-01-15T00:00:01"})
        assert (await _preview(world, subscription=made.id)).total == 3100
        await world.update(made.id, update_mask={"paths": ["pause_collection"]})
        # One that ends with its trial anyway leaves over what is pending.
        added = [{"price": await world.one_time(450)}]
        await world.update(made.id, add_invoice_items=added, cancel_at_period_end=True)
        assert (await _preview(world, subscription=made.id)).total == 450
        await world.update(made.id, cancel_at_period_end=False)
        await world.card(customer, OK)
    preview = await _preview(world, subscription=made.id)
    await world.advance("2025-01-15T01:00")
    assert _shown(preview) == _shown(await world.latest(made.id))


@pytest.mark.parametrize("change", ["resumed", "added", "another meter", "created", "ends early"])
async def test_of_usage_that_only_begins_to_count(client: BillingClient, change: str) -> None:
    """A change after which metered items count from now on, or until another time, is previewed with what is known."""
    world = await World.begin(client, "2025-03-01")
    customer, licensed = await world.customer(None if change == "resumed" else OK), await world.price(3100)
    metered = await world.metered(await world.meter())
    prices = {"resumed": [licensed, metered], "added": [licensed], "another meter": [metered], "ends early": [metered]}
    known, made = 0, None
    if change in prices:
        made = await world.subscribe(customer, *prices[change], **(PAUSED if change == "resumed" else {}))
        known = len(await world.invoices(made.id))
    await world.advance("2025-03-20T12:00")
    await world.card(customer, OK)
    await world.use(customer, 9, "2025-03-20T11:00")
    other = await world.metered(await world.meter("others"), 20)
    changes: dict[str, Fields] = {
        "resumed": {"billing_cycle_anchor": "unchanged", "proration_behavior": "none"},
        "added": {"items": [{"price": metered}]},
        "another meter": {"items": [{"id": made and made.items[0].id, "price": other}], "proration_behavior": "none"},
        "created": {
            "customer": customer,
            "items": [{"price": metered}],
            "billing_cycle_anchor": "2025-04-01",
            "proration_behavior": "none",
        },
        "ends early": {"cancel_at": "2025-03-25"},
    }
    wanted = changes[change]
    if made is not None:
        wanted["id"] = made.id
    kinds = {"resumed": ("resume", "ResumeSubscription"), "created": ("create", "CreateSubscription")}
    kind, method = kinds.get(change, ("update", "UpdateSubscription"))
    preview = await _preview(world, **{kind: wanted})
    answered = await world.call("subscriptions", method, **wanted)
    if len(await world.invoices(answered.id)) == known:
        await world.advance(preview.created.seconds + 3600)
    invoice = (await world.invoices(answered.id))[known]
    assert _shown(preview) == _shown(invoice)


@pytest.mark.parametrize("begins", ["2025-02-01", "2025-01-20"])
@pytest.mark.parametrize(
    "phase",
    [
        {"price": "other", "iterations": 1},
        {"price": "other", "iterations": 1, "proration_behavior": "none"},
        {"price": "other", "iterations": 1, "proration_behavior": "always_invoice"},
        {"price": "other", "iterations": 1, "billing_cycle_anchor": "phase_start"},
        {"price": "other", "iterations": 2, "trial_end": "2025-02-10"},
        {"price": "other", "end_date": "2025-02-15"},
        {"price": "other", "end_date": "2025-01-25"},
        {"price": "yearly", "iterations": 1},
        None,
    ],
    ids=str,
)
async def test_of_a_subscription_with_a_schedule(client: BillingClient, phase: Fields | None, begins: str) -> None:
    """The phases ahead are in it: what begins, or ends, before the period does, and with it."""
    if phase is not None and phase.get("end_date", "9") < begins:
        phase = {**phase, "end_date": "2025-02-11T08:00"}
    world = await World.begin(client, "2025-01-01")
    customer, price = await world.customer(), await world.price(3100)
    prices = {"other": await world.price(5000), "yearly": await world.price(50000, "year")}
    made = await world.subscribe(customer, price)
    await world.call("customers", "AdjustBalance", customer=customer, amount=-333, currency="usd")
    await world.advance("2025-01-10")
    schedule = await world.call("schedules", "CreateSubscriptionSchedule", from_subscription=made.id)
    phases: list[Fields] = [{"items": [{"price": price}], "end_date": begins}]
    if phase is not None:
        phases.append({"items": [{"price": prices[phase["price"]]}], **phase})
        del phases[1]["price"]
    await world.call("schedules", "UpdateSubscriptionSchedule", id=schedule.id, phases=phases, end_behavior="cancel")
    head, known = await _head(world), len(await world.invoices(made.id))
    if phase is None and begins == "2025-02-01":
        with pytest.raises(WrongState, match="nothing is left to bill"):
            await _preview(world, subscription=made.id)
        return
    preview = await _preview(world, subscription=made.id)
    assert preview.id == ""
    assert await _head(world) == head, "a preview wrote something"
    await world.advance(preview.created.seconds + 3600)
    invoice = (await world.invoices(made.id))[known]
    assert invoice.created == preview.created
    assert _shown(preview) == _shown(invoice)
