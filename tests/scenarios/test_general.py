"""General scenarios: anchors, prorations, cancellation, idempotency, and the canonical order of events."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import MessageToDict

from billing_client import BillingClient, InvalidArgument
from billing_client.calls import idempotency_key
from tests.scenarios.world import BAD, World, at, base, word


async def test_83_anchor_on_the_31st(client: BillingClient) -> None:
    world = await World.begin(client, "2024-01-31T10:00")
    subscription = await world.subscribe(await world.customer(), await world.price(3100))
    await world.advance("2024-05-01")
    created = [invoice.created.seconds for invoice in await world.invoices(subscription.id)]
    assert created == [1706695200, 1709200800, 1711879200, 1714471200]


async def test_one_price_in_two_currencies(client: BillingClient) -> None:
    """What is asked for, previewed, forecast, billed and told is the option; another customer pays the price's own."""
    world = await World.begin(client, "2025-01-01")
    price = await world.price(1000, currency_options=[{"currency": "eur", "unit_amount": "900"}])
    shown = await world.call("catalog", "GetPrice", id=price)
    assert [(option.currency, option.unit_amount) for option in shown.currency_options] == [("eur", "900")]

    customer = await world.customer()
    wanted = {"customer": customer, "items": [{"price": price, "quantity": 2}], "currency": "eur"}
    preview = await world.call("subscriptions", "PreviewSubscriptionInvoice", create=wanted)
    subscription = await world.call("subscriptions", "CreateSubscription", **wanted)
    first = await world.latest(subscription.id)
    assert (subscription.currency, preview.total, first.total, first.currency) == ("eur", 1800, 1800, "eur")
    forecast = await world.call("subscriptions", "ForecastSubscription", id=subscription.id, until="2025-02-02")
    paid = [event.invoice for event in forecast.events if event.type == "invoice.paid"]
    assert [(invoice.total, invoice.currency) for invoice in paid] == [(1800, "eur")]
    await world.advance("2025-02-02")
    renewal = await world.latest(subscription.id)
    assert (renewal.total, word(renewal, "status")) == (1800, "paid")

    other = await world.subscribe(await world.customer(), price)
    assert (other.currency, (await world.latest(other.id)).total) == ("usd", 1000)
    with pytest.raises(InvalidArgument, match="this customer is billed in eur; use eur, or another customer for usd"):
        await world.subscribe(customer, price, currency="usd")


async def test_84_yearly_from_a_leap_day(client: BillingClient) -> None:
    world = await World.begin(client, "2024-02-29")
    subscription = await world.subscribe(await world.customer(), await world.price(12000, "year"))
    await world.advance("2028-03-01")
    created = [invoice.created.seconds for invoice in await world.invoices(subscription.id)]
    assert created == [at(day) for day in ("2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29")]


async def test_the_anchor_follows_an_end_within_the_first_period(client: BillingClient) -> None:
    world = await World.begin(client, "2024-01-01")
    subscription = await world.subscribe(
        await world.customer(), await world.price(12000, "year"), cancel_at="2024-07-01"
    )
    assert (await world.latest(subscription.id)).total == 5967
    assert subscription.billing_cycle_anchor.seconds == subscription.current_period_end.seconds == at("2024-07-01")
    subscription = await world.update(subscription.id, update_mask={"paths": ["cancel_at"]})
    assert subscription.billing_cycle_anchor.seconds == at("2024-01-01")
    assert subscription.current_period_end.seconds == at("2025-01-01")
    updated = (await world.events("customer.subscription.updated"))[-1]
    assert updated.previous_attributes["billing_cycle_anchor"] == "2024-07-01T00:00:00Z"


async def test_metadata_is_merged_and_an_empty_value_removes_its_key(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(metadata={"plan": "gold", "seats": "3", "blank": ""})
    assert dict((await world.the_customer(customer)).metadata) == {"plan": "gold", "seats": "3"}
    changed = await world.call("customers", "UpdateCustomer", id=customer, metadata={"seats": "", "team": "7"})
    assert dict(changed.metadata) == {"plan": "gold", "team": "7"}
    updated = (await world.events("customer.updated"))[-1]
    assert MessageToDict(updated.previous_attributes) == {"metadata": {"seats": "3", "team": None}}


async def _upgraded(client: BillingClient, behavior: str) -> tuple[World, str]:
    world = await World.begin(client, "2025-04-01")
    old, new = await world.price(1000), await world.price(2000)
    subscription = await world.subscribe(await world.customer(), old)
    await world.advance("2025-04-16")
    await world.update(
        subscription.id,
        items=[{"id": subscription.items[0].id, "price": new}],
        proration_behavior=behavior,
    )
    return world, subscription.id


async def test_85_upgrade_in_the_middle(client: BillingClient) -> None:
    world, subscription = await _upgraded(client, "create_prorations")
    items = await world.call("invoices", "ListInvoiceItems", pending=True)
    assert sorted(item.amount for item in items.invoice_items) == [-500, 1000]
    await world.advance("2025-05-01T01:00")
    invoice = await world.latest(subscription)
    assert (invoice.total, word(invoice, "status")) == (2500, "paid")


async def test_87_no_prorations(client: BillingClient) -> None:
    world, subscription = await _upgraded(client, "none")
    assert not (await world.call("invoices", "ListInvoiceItems", pending=True)).invoice_items
    await world.advance("2025-05-01T01:00")
    assert (await world.latest(subscription)).total == 2000


async def test_89_downgrade_leaves_a_credit(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    old, new = await world.price(2000), await world.price(1000)
    customer = await world.customer()
    subscription = await world.subscribe(customer, old)
    await world.advance("2025-04-11")
    await world.update(
        subscription.id,
        items=[{"id": subscription.items[0].id, "price": new}],
        proration_behavior="always_invoice",
    )
    invoice = await world.latest(subscription.id)
    # 20 of 30 days: -1333 (2000 x 2/3) and +667 (1000 x 2/3).
    assert (invoice.total, invoice.amount_due, word(invoice, "status")) == (-666, 0, "paid")
    assert (await world.the_customer(customer)).balance == -666


async def test_92_stub_to_the_anchor(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-16")
    price = await world.price(3100)
    subscription = await world.subscribe(await world.customer(), price, billing_cycle_anchor="2025-02-01")
    assert [invoice.total for invoice in await world.invoices(subscription.id)] == [1600]
    free = await world.subscribe(
        await world.customer(), price, billing_cycle_anchor="2025-02-01", proration_behavior="none"
    )
    assert not await world.invoices(free.id)
    await world.advance("2025-02-01T01:00")
    for found in (subscription, free):
        assert (await world.latest(found.id)).total == 3100


async def test_93_cancel_at_period_end(client: BillingClient) -> None:
    world, _, subscription = await base(client, then=None)
    await world.advance("2025-01-10")
    await world.news()
    await world.update(subscription, cancel_at_period_end=True)
    assert await world.news() == ["customer.subscription.updated"]
    await world.update(subscription, cancel_at_period_end=False)
    assert not (await world.subscription(subscription)).cancel_at_period_end
    await world.update(subscription, cancel_at_period_end=True)
    await world.advance("2025-02-01")
    ended = await world.subscription(subscription)
    assert word(ended, "status") == "canceled"
    assert (ended.ended_at.seconds, ended.canceled_at.seconds) == (1738368000, at("2025-01-10"))
    assert len(await world.invoices(subscription)) == 1


async def test_94_cancel_now_with_a_final_invoice(client: BillingClient) -> None:
    world, customer, subscription = await base(client, then=None)
    await world.advance("2025-01-11")
    ended = await world.call("subscriptions", "CancelSubscription", id=subscription, prorate=True, invoice_now=True)
    assert word(ended, "status") == "canceled"
    assert (await world.latest(subscription)).total == -2100
    assert (await world.the_customer(customer)).balance == -2100
    assert len(await world.events("customer.subscription.deleted")) == 1


async def test_101_idempotency(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer, price = await world.customer(), await world.price(3100)
    first = await world.subscribe(customer, price)
    key = idempotency_key("order-17")
    one = await world.call(
        "subscriptions", "CreateSubscription", customer=customer, items=[{"price": price}], call_metadata=key
    )
    two = await world.call(
        "subscriptions", "CreateSubscription", customer=customer, items=[{"price": price}], call_metadata=key
    )
    assert one.id == two.id != first.id
    assert len(await world.invoices(one.id)) == 1
    with pytest.raises(InvalidArgument) as refused:
        await world.call(
            "subscriptions",
            "CreateSubscription",
            customer=customer,
            items=[{"price": price, "quantity": 2}],
            call_metadata=key,
        )
    assert refused.value.reason == "IDEMPOTENCY_MISMATCH"


RENEWED = ["customer.subscription.updated", "invoice.created"]
PAID = ["payment_intent.succeeded", "invoice.updated", "invoice.paid", "invoice.payment_succeeded"]
FAILED = ["payment_intent.payment_failed", "invoice.updated", "invoice.payment_failed"]
FINALIZED = ["invoice.finalized", "payment_intent.created"]


async def test_canonical_order_of_a_life(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer()
    price = await world.price(3100)
    await world.news()
    await world.subscribe(customer, price)
    created = await world.news()
    assert [told for told in created if told != "customer.updated"] == [
        "customer.subscription.created",
        "invoice.created",
        *FINALIZED,
        *PAID,
        "customer.subscription.updated",
    ]
    await world.advance("2025-01-26")
    assert "invoice.upcoming" in await world.news()
    await world.advance("2025-02-01")
    assert [told for told in await world.news() if told.startswith(("cust", "inv"))] == RENEWED
    await world.advance("2025-02-01T01:00")
    assert [told for told in await world.news() if "clock" not in told] == [*FINALIZED, *PAID]
    await world.card(customer, BAD)
    await world.advance("2025-03-01")
    await world.news()
    await world.advance("2025-03-01T01:00")
    assert [told for told in await world.news() if "clock" not in told] == [
        *FINALIZED,
        *FAILED,
        "customer.subscription.updated",
        "customer.updated",
    ]
    await world.advance("2025-03-16T00:59:59")
    await world.news()
    await world.advance("2025-03-16T01:00")
    assert [told for told in await world.news() if "clock" not in told] == [
        *FAILED,
        "customer.subscription.deleted",
        "invoice.updated",
    ]


async def test_customers_of_one_clock_are_told_of_in_the_order_of_time(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price = await world.price(3100)
    for _ in range(3):
        await world.subscribe(await world.customer(), price)
    began = len(await world.events())
    await world.advance("2025-03-02")
    told = [event for event in (await world.events())[began:] if "clock" not in event.type]
    created = [event.created.seconds for event in told]
    assert created == sorted(created)
    assert len({event.customer for event in told[:4]}) == 3


async def test_canonical_order_of_the_expiry(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.subscribe(await world.customer(BAD), await world.price(3100))
    await world.news()
    await world.advance("2025-01-02")
    assert [told for told in await world.news() if "clock" not in told] == [
        "invoice.voided",
        "payment_intent.canceled",
        "customer.subscription.updated",
    ]
