"""Scenarios S3: trials, anchors, missing payment methods, resuming."""

from __future__ import annotations

import pytest

from billing_client import BillingClient, InvalidArgument, WrongState
from tests.scenarios.world import OK, World, at, word


async def test_51_trial_with_a_free_first_invoice(client: BillingClient) -> None:
    world = await World.begin(client, 1609798905)
    subscription = await world.subscribe(await world.customer(), await world.price(3000), trial_end=1610403705)
    assert word(subscription, "status") == "trialing"
    invoice = await world.latest(subscription.id)
    assert (invoice.total, word(invoice, "status")) == (0, "paid")
    item = subscription.items[0]
    assert (item.current_period_start.seconds, item.current_period_end.seconds) == (1609798905, 1610403705)


async def test_52_trials_last_at_most_730_days(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer, price = await world.customer(), await world.price(3000)
    with pytest.raises(InvalidArgument):
        await world.subscribe(customer, price, trial_period_days=731)
    assert word(await world.subscribe(customer, price, trial_period_days=730), "status") == "trialing"


async def _trial(client: BillingClient, card: str | None = OK, **fields: object) -> tuple[World, str, str]:
    world = await World.begin(client, "2025-03-01")
    customer = await world.customer(card)
    made = await world.subscribe(customer, await world.price(3100), trial_period_days=14, **fields)
    return world, customer, made.id


async def test_53_end_of_a_trial(client: BillingClient) -> None:
    world, _, subscription = await _trial(client)
    await world.advance(1741996800)
    (notice,) = await world.events("customer.subscription.trial_will_end")
    assert notice.created.seconds == 1741737600
    found = await world.subscription(subscription)
    assert word(found, "status") == "active"
    invoice = await world.latest(subscription)
    assert (word(invoice, "status"), invoice.total) == ("draft", 3100)
    await world.advance("2025-03-15T01:00")
    assert word(await world.latest(subscription), "status") == "paid"
    assert found.items[0].current_period_end.seconds == at("2025-04-15")


async def test_54_short_trials_are_announced_at_once(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    await world.subscribe(await world.customer(), await world.price(3100), trial_period_days=2)
    assert (await world.news())[-1] == "customer.subscription.trial_will_end"


async def test_55_trial_end_now(client: BillingClient) -> None:
    world, _, subscription = await _trial(client)
    await world.advance("2025-03-05")
    found = await world.update(subscription, trial_end_now=True)
    assert word(found, "status") == "active"
    assert found.billing_cycle_anchor.seconds == at("2025-03-05")
    invoice = await world.latest(subscription)
    assert (word(invoice, "status"), invoice.total, word(invoice, "billing_reason")) == (
        "paid",
        3100,
        "subscription_update",
    )


async def test_56_trial_then_proration_then_the_fixed_cycle(client: BillingClient) -> None:
    world = await World.begin(client, 1609798905)
    subscription = await world.subscribe(
        await world.customer(), await world.price(3000), trial_end=1610403705, billing_cycle_anchor=1611008505
    )
    await world.advance("2021-03-01")
    _, *invoices = await world.invoices(subscription.id)
    assert [(invoice.created.seconds, invoice.total) for invoice in invoices] == [
        (1610403705, 677),
        (1611008505, 3000),
        (at("2021-02-18T22:21:45"), 3000),
    ]


async def test_56_the_example_in_the_prose(client: BillingClient) -> None:
    """From July 15 a free week, from the 22nd to August 1 ten of 31 days, then whole months."""
    world = await World.begin(client, "2025-07-15")
    subscription = await world.subscribe(
        await world.customer(),
        await world.price(3100),
        trial_end="2025-07-22",
        billing_cycle_anchor="2025-08-01",
    )
    await world.advance("2025-09-02")
    _, *invoices = await world.invoices(subscription.id)
    assert [invoice.total for invoice in invoices] == [1000, 3100, 3100]


@pytest.mark.parametrize(
    ("behavior", "status", "event"),
    [
        ("cancel", "canceled", "customer.subscription.deleted"),
        ("pause", "paused", "customer.subscription.paused"),
    ],
)
async def test_58_and_59_no_payment_method(client: BillingClient, behavior: str, status: str, event: str) -> None:
    world, _, subscription = await _trial(client, None, missing_payment_method=behavior)
    await world.advance("2025-05-15")
    assert await world.status(subscription) == status
    assert len(await world.events(event)) == 1
    assert len(await world.invoices(subscription)) == 1


@pytest.mark.parametrize(("behavior", "status"), [("cancel", "canceled"), ("pause", "paused")])
async def test_58_and_59_no_payment_method_when_it_is_ended_at_once(
    client: BillingClient, behavior: str, status: str
) -> None:
    world, _, subscription = await _trial(client, None, missing_payment_method=behavior)
    await world.advance("2025-03-05")
    assert word(await world.update(subscription, trial_end_now=True), "status") == status
    assert len(await world.invoices(subscription)) == 1


async def test_60_no_payment_method_create_invoice(client: BillingClient) -> None:
    world, _, subscription = await _trial(client, None)
    await world.advance("2025-03-15")
    assert word(await world.latest(subscription), "status") == "draft"
    await world.advance("2025-03-15T01:00")
    assert word(await world.latest(subscription), "status") == "open"
    assert await world.status(subscription) == "past_due"


async def _paused(client: BillingClient) -> tuple[World, str, str]:
    world, customer, subscription = await _trial(client, None, missing_payment_method="pause")
    await world.advance(1744286400)
    await world.card(customer, OK)
    return world, customer, subscription


async def test_62_resume(client: BillingClient) -> None:
    world, _, subscription = await _paused(client)
    resumed = await world.call("subscriptions", "ResumeSubscription", id=subscription)
    assert word(resumed, "status") == "paused"
    invoice = await world.latest(subscription)
    assert (word(invoice, "status"), invoice.total) == ("open", 3100)
    assert not await world.events("customer.subscription.resumed")
    await world.call("invoices", "PayInvoice", id=invoice.id)
    found = await world.subscription(subscription)
    assert word(found, "status") == "active"
    item = found.items[0]
    assert (item.current_period_start.seconds, item.current_period_end.seconds) == (1744286400, at("2025-05-10T12:00"))
    assert len(await world.events("customer.subscription.resumed")) == 1
    await world.advance("2025-05-11")
    assert (await world.latest(subscription)).created.seconds == at("2025-05-10T12:00")


async def test_62_an_unpaid_resumption_is_void_after_23_hours(client: BillingClient) -> None:
    world, _, subscription = await _paused(client)
    await world.call("subscriptions", "ResumeSubscription", id=subscription)
    await world.advance(1744286400 + 82_800)
    assert word(await world.latest(subscription), "status") == "void"
    assert await world.status(subscription) == "paused"
    await world.call("subscriptions", "ResumeSubscription", id=subscription)
    await world.call("invoices", "PayInvoice", id=(await world.latest(subscription)).id)
    assert await world.status(subscription) == "active"


async def test_66_updates_while_paused(client: BillingClient) -> None:
    world, _, subscription = await _paused(client)
    item = (await world.subscription(subscription)).items[0].id
    changed = await world.update(subscription, items=[{"id": item, "quantity": 5}])
    assert changed.items[0].quantity == 5
    assert not (await world.call("invoices", "ListInvoiceItems", pending=True)).invoice_items
    with pytest.raises(WrongState) as refused:
        await world.update(subscription, trial_end="2025-06-01")
    assert refused.value.reason == "SUBSCRIPTION_PAUSED"


@pytest.mark.parametrize(("mode", "start"), [("classic", "2025-01-01"), ("flexible", "2025-06-01")])
async def test_68_a_second_trial(client: BillingClient, mode: str, start: str) -> None:
    world = await World.begin(client, "2025-01-01")
    subscription = await world.subscribe(
        await world.customer(), await world.price(3100), trial_end="2025-01-15", billing_mode=mode
    )
    await world.advance("2025-06-01")
    found = await world.update(subscription.id, trial_end="2025-08-01")
    assert word(found, "status") == "trialing"
    assert found.trial_start.seconds == at(start)


async def test_72_a_trial_moves_the_anchor(client: BillingClient) -> None:
    world = await World.begin(client, "2025-06-23")
    subscription = await world.subscribe(await world.customer(), await world.price(3100))
    await world.advance("2025-07-15")
    found = await world.update(subscription.id, trial_end="2025-08-01", proration_behavior="none")
    assert word(found, "status") == "trialing"
    await world.advance("2025-08-01T01:00")
    totals = [(invoice.created.seconds, invoice.total) for invoice in await world.invoices(subscription.id)]
    assert totals == [(at("2025-06-23"), 3100), (at("2025-07-15"), 0), (at("2025-08-01"), 3100)]
    assert (await world.subscription(subscription.id)).billing_cycle_anchor.seconds == at("2025-08-01")


async def test_trial_over_on_the_statement(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    await world.settings(statement_descriptor="ACME ENTERTAINMENT")
    subscription = await world.subscribe(await world.customer(), await world.price(3100), trial_period_days=14)
    await world.advance("2025-04-16")
    _, first, second = await world.invoices(subscription.id)
    assert first.statement_descriptor == "ACME ENTER* TRIAL OVER"
    assert second.statement_descriptor == "ACME ENTERTAINMENT"


async def test_trial_over_on_the_first_charge_not_on_an_invoice_of_nothing(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    await world.settings(statement_descriptor="ACME ENTERTAINMENT")
    customer = await world.customer()
    metered = await world.metered(await world.meter())
    subscription = await world.subscribe(customer, metered, trial_period_days=14)
    await world.advance("2025-03-20")
    await world.use(customer, 500)
    await world.advance("2025-05-16")
    _, free, charged, later = await world.invoices(subscription.id)
    assert (free.amount_due, free.statement_descriptor) == (0, "ACME ENTERTAINMENT")
    assert (charged.amount_paid, charged.statement_descriptor) == (5000, "ACME ENTER* TRIAL OVER")
    assert later.statement_descriptor == "ACME ENTERTAINMENT"


async def test_one_off_fee_with_a_trial_is_charged_at_once(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    subscription = await world.subscribe(
        await world.customer(),
        await world.price(3100),
        trial_period_days=14,
        add_invoice_items=[{"price": await world.one_time(900), "quantity": 1}],
    )
    assert word(subscription, "status") == "trialing"
    invoice = await world.latest(subscription.id)
    assert (word(invoice, "status"), invoice.amount_paid) == ("paid", 900)
