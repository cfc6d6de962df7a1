"""Scenarios S1: collection methods, first payments, retries and their ends."""

from __future__ import annotations

import pytest

from billing_client import BillingClient, InvalidArgument, PaymentFailed, WrongState
from tests.scenarios.world import BAD, OK, World, at, base, word


async def test_10_first_payment_fails(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(BAD)
    subscription = await world.subscribe(customer, await world.price(3100), payment_behavior="allow_incomplete")
    assert word(subscription, "status") == "incomplete"
    invoice = await world.latest(subscription.id)
    assert (word(invoice, "status"), invoice.attempt_count) == ("open", 1)
    assert not invoice.HasField("next_payment_attempt")
    assert word(invoice.payment_intent, "status") == "requires_payment_method"
    assert len(await world.events("invoice.payment_failed")) == 1


async def test_11_default_incomplete_waits_for_confirmation(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(OK)
    subscription = await world.subscribe(customer, await world.price(3100), payment_behavior="default_incomplete")
    assert word(subscription, "status") == "incomplete"
    invoice = await world.latest(subscription.id)
    assert not await world.attempts(invoice.id)
    await world.advance("2025-01-01T00:10")
    await world.call("payments", "ConfirmPaymentIntent", id=invoice.payment_intent.id)
    assert word(await world.invoice(invoice.id), "status") == "paid"
    assert await world.status(subscription.id) == "active"
    (updated,) = await world.events("customer.subscription.updated")
    assert updated.previous_attributes["status"] == "SUBSCRIPTION_STATUS_INCOMPLETE"


async def test_12_incomplete_expires_after_23_hours(client: BillingClient) -> None:
    world = await World.begin(client, 1735689600)
    subscription = await world.subscribe(await world.customer(BAD), await world.price(3100))
    await world.advance(1735772399)
    assert await world.status(subscription.id) == "incomplete"
    await world.advance(1735772400)
    assert await world.status(subscription.id) == "incomplete_expired"
    await world.advance("2025-04-01")
    (invoice,) = await world.invoices(subscription.id)
    assert word(invoice, "status") == "void"


async def test_14_what_may_change_while_incomplete(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price = await world.price(3100)
    subscription = await world.subscribe(await world.customer(BAD), price)
    changed = await world.update(
        subscription.id,
        metadata={"tier": "gold"},
        description="first",
        save_default_payment_method="on_subscription",
    )
    assert (changed.metadata["tier"], changed.description) == ("gold", "first")
    item = subscription.items[0].id
    for fields in (
        {"items": [{"id": item, "quantity": 2}]},
        {"items": [{"price": await world.price(500)}]},
        {"trial_end": at("2025-02-01")},
    ):
        with pytest.raises(WrongState) as refused:
            await world.update(subscription.id, **fields)
        assert refused.value.reason == "SUBSCRIPTION_INCOMPLETE"


async def test_15_renewal_fails(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.advance("2025-02-01T01:00")
    invoice = await world.latest(subscription)
    assert await world.status(subscription) == "past_due"
    assert word(invoice, "status") == "open"
    assert invoice.next_payment_attempt.seconds == 1738630800
    assert (await world.the_customer(customer)).delinquent


async def test_17_unpaid_after_the_last_retry(client: BillingClient) -> None:
    world, _, subscription = await base(client, subscription_final_action="unpaid")
    await world.advance("2025-02-16T00:59:59")
    assert await world.status(subscription) == "past_due"
    await world.advance("2025-02-16T01:00")
    assert await world.status(subscription) == "unpaid"
    await world.advance("2025-03-01T02:00")
    _, february, march = await world.invoices(subscription)
    assert march.created.seconds == 1740787200
    assert (word(march, "status"), march.auto_advance, march.attempt_count) == ("draft", False, 0)
    assert word(february, "status") == "open"
    failed = [event.created.seconds for event in await world.events("invoice.payment_failed")]
    assert failed == [at(f"2025-02-{day}T01:00") for day in ("01", "04", "09", "16")]


async def test_20_and_21_sent_invoices(client: BillingClient) -> None:
    world = await World.begin(client, 1735689600)
    customer = await world.customer(None)
    subscription = await world.subscribe(
        customer, await world.price(3100), collection_method="send_invoice", days_until_due=30
    )
    assert word(subscription, "status") == "active"
    assert word(await world.latest(subscription.id), "status") == "draft"
    await world.advance("2025-01-01T01:00")
    invoice = await world.latest(subscription.id)
    assert word(invoice, "status") == "open"
    assert invoice.due_date.seconds == 1738281600
    assert not invoice.HasField("next_payment_attempt")
    told = [event.type for event in await world.events("invoice.finalized", "invoice.sent")]
    assert told == ["invoice.finalized", "invoice.sent"]
    await world.advance(1738281600)
    invoice = await world.invoice(invoice.id)
    assert await world.status(subscription.id) == "past_due"
    assert (word(invoice, "status"), invoice.overdue, invoice.attempt_count) == ("open", True, 0)
    assert (await world.the_customer(customer)).delinquent
    overdue = await world.call("invoices", "ListInvoices", customer=customer, overdue=True)
    assert [found.id for found in overdue.invoices] == [invoice.id]


async def test_24_collection_method_changes_later_invoices_only(client: BillingClient) -> None:
    world, _, subscription = await base(client, then=None)
    await world.advance("2025-01-10")
    await world.update(subscription, collection_method="send_invoice", days_until_due=14)
    await world.advance("2025-02-01")
    january, february = await world.invoices(subscription)
    assert word(january, "collection_method") == "charge_automatically"
    assert word(february, "collection_method") == "send_invoice"
    assert february.due_date.seconds == at("2025-02-15")


async def test_25_one_off_without_auto_advance_stays_open(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(BAD)
    await world.call("invoices", "CreateInvoiceItem", customer=customer, amount=5000, currency="usd")
    invoice = await world.call("invoices", "CreateInvoice", customer=customer, pending_invoice_items_behavior="include")
    await world.call("invoices", "FinalizeInvoice", id=invoice.id)
    with pytest.raises(PaymentFailed) as declined:
        await world.call("invoices", "PayInvoice", id=invoice.id)
    assert (declined.value.reason, declined.value.decline_code) == ("CARD_DECLINED", "generic_decline")
    await world.advance("2025-04-01")
    invoice = await world.invoice(invoice.id)
    assert (word(invoice, "status"), invoice.attempt_count) == ("open", 1)


@pytest.mark.parametrize("verb", ["MarkInvoiceUncollectible", "VoidInvoice"])
async def test_27_one_off_past_due(client: BillingClient, verb: str) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(None)
    await world.call("invoices", "CreateInvoiceItem", customer=customer, amount=5000, currency="usd")
    invoice = await world.call(
        "invoices",
        "CreateInvoice",
        customer=customer,
        collection_method="send_invoice",
        days_until_due=7,
        pending_invoice_items_behavior="include",
    )
    await world.call("invoices", "SendInvoice", id=invoice.id)
    await world.advance("2025-03-01")
    assert word(await world.invoice(invoice.id), "status") == "open"
    ended = await world.call("invoices", verb, id=invoice.id)
    assert word(ended, "status") in ("uncollectible", "void")


async def test_29_trial_without_a_payment_method(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    subscription = await world.subscribe(await world.customer(None), await world.price(3100), trial_period_days=14)
    assert word(subscription, "status") == "trialing"


async def test_30_all_or_nothing(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer = await world.customer(BAD)
    price = await world.price(3100)
    await world.news()
    with pytest.raises(PaymentFailed) as declined:
        await world.subscribe(customer, price, payment_behavior="error_if_incomplete")
    assert declined.value.reason == "CARD_DECLINED"
    assert await world.news() == []
    assert not (
        await world.call("subscriptions", "ListSubscriptions", customer=customer, include_ended=True)
    ).subscriptions
    assert not (await world.call("invoices", "ListInvoices", customer=customer)).invoices
    await world.card(customer, OK)
    created = await world.subscribe(customer, price, payment_behavior="error_if_incomplete")
    assert word(created, "status") == "active"


async def test_pending_if_incomplete_is_refused_on_create(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    with pytest.raises(InvalidArgument):
        await world.subscribe(await world.customer(), await world.price(3100), payment_behavior="pending_if_incomplete")
