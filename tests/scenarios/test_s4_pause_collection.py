"""Scenarios S4: the three ways to pause collection."""

from __future__ import annotations

import pytest

from billing_client import BillingClient
from tests.scenarios.world import World, at, base, word


async def _pause(client: BillingClient, behavior: str, **more: object) -> tuple[World, str, str]:
    world, customer, subscription = await base(client, then=None)
    await world.advance("2025-01-10")
    await world.news()
    await world.update(subscription, pause_collection={"behavior": behavior, **more})
    return world, customer, subscription


async def test_73_void_until_a_day(client: BillingClient) -> None:
    world, _, subscription = await _pause(client, "void", resumes_at="2025-03-15")
    await world.advance("2025-03-14")
    assert await world.status(subscription) == "active"
    await world.advance("2025-04-01T01:00")
    _, february, march, april = await world.invoices(subscription)
    assert [word(invoice, "status") for invoice in (february, march, april)] == ["void", "void", "paid"]
    assert (april.amount_paid, february.attempt_count, march.attempt_count) == (3100, 0, 0)
    unset = [
        event.created.seconds
        for event in await world.events("customer.subscription.updated")
        if "pause_collection" in event.previous_attributes
    ]
    assert unset == [at("2025-01-10"), at("2025-03-15")]


async def test_74_keep_as_draft(client: BillingClient) -> None:
    world, _, subscription = await _pause(client, "keep_as_draft")
    await world.advance("2025-02-20")
    february = await world.latest(subscription)
    assert (word(february, "status"), february.auto_advance) == ("draft", False)
    await world.update(subscription, update_mask={"paths": ["pause_collection"]})
    await world.advance("2025-02-25")
    assert word(await world.invoice(february.id), "status") == "draft"
    await world.call("invoices", "UpdateInvoice", id=february.id, auto_advance=True)
    await world.advance("2025-02-25T01:00")
    assert word(await world.invoice(february.id), "status") == "paid"


@pytest.mark.parametrize(
    ("credit", "status", "balance"), [(0, "uncollectible", 0), (-1000, "uncollectible", 0), (-5000, "paid", -1900)]
)
async def test_76_mark_uncollectible(client: BillingClient, credit: int, status: str, balance: int) -> None:
    world, customer, subscription = await _pause(client, "mark_uncollectible")
    if credit:
        await world.call("customers", "AdjustBalance", customer=customer, amount=credit)
    await world.advance("2025-02-02")
    february = await world.latest(subscription)
    assert (word(february, "status"), february.attempt_count) == (status, 0)
    assert (await world.the_customer(customer)).balance == balance
    assert await world.status(subscription) == "active"


async def test_80_and_82_only_the_subscription_is_told(client: BillingClient) -> None:
    world, _, subscription = await _pause(client, "void")
    assert await world.news() == ["customer.subscription.updated"]
    await world.advance("2025-02-02")
    told = [name for name in await world.news() if "clock" not in name]
    assert told == ["customer.subscription.updated", "invoice.created", "invoice.voided"]
    await world.update(subscription, update_mask={"paths": ["pause_collection"]})
    assert await world.news() == ["customer.subscription.updated"]
    assert not await world.events("customer.subscription.paused", "customer.subscription.resumed")


async def test_invoices_from_before_the_pause_are_retried(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.advance("2025-02-01T01:00")
    await world.update(subscription, pause_collection={"behavior": "void"})
    await world.card(customer, "pm_card_visa")
    await world.advance("2025-02-04T01:00")
    assert word(await world.latest(subscription), "status") == "paid"
    assert await world.status(subscription) == "active"


async def test_a_paused_collection_never_leads_to_status_paused(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    subscription = await world.subscribe(
        await world.customer(None), await world.price(3100), trial_period_days=14, missing_payment_method="pause"
    )
    await world.update(subscription.id, pause_collection={"behavior": "keep_as_draft"})
    await world.advance("2025-03-20")
    assert await world.status(subscription.id) == "active"
    assert word(await world.latest(subscription.id), "status") == "draft"


async def test_past_due_stays_past_due_while_paused(client: BillingClient) -> None:
    world, _, subscription = await base(client, subscription_final_action="past_due")
    await world.advance("2025-02-01T01:00")
    await world.update(subscription, pause_collection={"behavior": "void"})
    await world.advance("2025-03-02")
    assert await world.status(subscription) == "past_due"
