"""S0: the four recipes, each from end to end through the RPCs (scenarios 1 to 7)."""

from __future__ import annotations

from typing import Any

import pytest

from billing_client import BillingClient, BillingError
from billing_server.bootstrap import Server
from tests.scenarios.test_mail import messages
from tests.scenarios.world import BAD, World, at, base, word

TRIES = [
    *("2025-02-08T13:00", "2025-02-16T01:00", "2025-02-23T13:00", "2025-03-03T01:00"),
    *("2025-03-10T13:00", "2025-03-18T01:00", "2025-03-25T13:00", "2025-04-02T01:00"),
]


async def yearly(client: BillingClient, card: str = BAD) -> tuple[World, str, str]:
    """A subscription of 120.00 a year that renews on 2025-02-01, when its card is another."""
    world = await World.begin(client, "2024-02-01")
    customer = await world.customer()
    subscription = (await world.subscribe(customer, await world.price(12_000, "year"))).id
    await world.advance("2025-01-20")
    await world.card(customer, card)
    return world, customer, subscription


async def test_1_annual_dunning(client: BillingClient) -> None:
    world, customer, subscription = await yearly(client)
    made = await world.recipe("annual_subscription_dunning")
    assert made.name == "Annual subscription dunning"

    await world.advance("2025-02-01T01:00")
    invoice = await world.latest(subscription)
    assert (invoice.attempt_count, invoice.status) == (1, 2)
    (run,) = await world.runs(customer=customer)
    assert (run.automation, run.trigger_event, run.invoice) == (made.id, "invoice.payment_failed", invoice.id)
    assert invoice.automation_run == run.id

    for tries, moment in enumerate(TRIES, start=1):
        await world.advance(at(moment) - 1)
        assert (await world.invoice(invoice.id)).attempt_count == tries
        await world.advance(moment)
        assert (await world.invoice(invoice.id)).attempt_count == tries + 1
        assert await world.status(subscription) == "past_due"
    assert len(await world.attempts(invoice.id)) == 9

    await world.advance(1_744_160_399)
    assert await world.status(subscription) == "past_due"
    await world.news()
    await world.advance(1_744_160_400)
    assert await world.status(subscription) == "canceled"
    assert word(await world.invoice(invoice.id), "status") == "uncollectible"
    told = [type_ for type_ in await world.news() if type_.startswith(("customer.sub", "invoice."))]
    assert told == ["customer.subscription.deleted", "invoice.updated", "invoice.marked_uncollectible"]
    (run,) = await world.runs(customer=customer)
    assert (word(run, "status"), run.ended_at.seconds) == ("completed", 1_744_160_400)
    assert [(word(step, "type"), step.executed_at.seconds, word(step, "result")) for step in run.steps] == [
        ("start_retry_policy", at("2025-02-01T01:00"), "done"),
        ("cancel_subscription", 1_744_160_400, "done"),
        ("mark_invoice_uncollectible", 1_744_160_400, "done"),
    ]
    assert run.steps[0].ended_at.seconds == at(TRIES[-1])


async def test_1_the_next_try_is_told_after_the_failure(client: BillingClient) -> None:
    world, _customer, _subscription = await yearly(client)
    await world.recipe("annual_subscription_dunning")
    await world.advance("2025-02-01T01:00")
    (failed,) = await world.events("invoice.payment_failed")
    assert not failed.invoice.HasField("next_payment_attempt")
    updates = [event for event in await world.events("invoice.updated") if event.position > failed.position]
    assert [event.invoice.next_payment_attempt.seconds for event in updates] == [at(TRIES[0])]
    assert updates[0].previous_attributes["next_payment_attempt"] is None


async def test_3_a_monthly_subscription_is_left_to_the_settings(client: BillingClient) -> None:
    world, customer, subscription = await base(client)
    await world.recipe("annual_subscription_dunning")
    await world.advance("2025-02-16T01:00")
    assert not await world.runs(customer=customer)
    invoice = await world.latest(subscription)
    assert [attempt.due_at.seconds for attempt in await world.attempts(invoice.id)] == [
        at(moment) for moment in ("2025-02-01T01:00", "2025-02-04T01:00", "2025-02-09T01:00", "2025-02-16T01:00")
    ]


async def test_4_the_team_is_told_of_a_high_invoice(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.settings(company_domain="acme.test")
    made = await world.recipe(
        "high_value_overdue_notice", recipients=["ops@acme.test"], memo="Invoice over $500 is overdue by X days"
    )
    high = await world.subscribe(
        await world.customer(), await world.price(60_000), collection_method="send_invoice", days_until_due=30
    )
    low = await world.subscribe(
        await world.customer(), await world.price(50_000), collection_method="send_invoice", days_until_due=30
    )
    await world.advance(1_738_281_599)
    assert not await world.runs()
    await world.advance(1_738_281_600)

    (run,) = await world.runs(automation=made.id)
    assert run.subscription == high.id
    assert (word(run, "status"), run.created.seconds) == ("completed", 1_738_281_600)
    (memo,) = [found for found in await messages(server, world) if found.kind == "team_memo"]
    assert (memo.recipient, memo.facts.memo) == ("ops@acme.test", "Invoice over $500 is overdue by X days")
    assert (memo.created, memo.facts.amount) == (1_738_281_600, 60_000)
    assert word(await world.invoice(run.invoice), "status") == "open"
    assert not await world.runs(subscription=low.id), "500.00 is not more than 500.00"


async def test_4_the_memo_has_a_default(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.settings(team_users=["jo@elsewhere.test"])
    made = await world.recipe("high_value_overdue_notice", recipients=["Jo@elsewhere.test"], more_than=20_000)
    assert made.actions[0].memo == "An invoice over 200.00 USD is overdue."


@pytest.mark.parametrize(
    ("settings", "recipient", "allowed"),
    [
        ({"company_domain": "acme.test"}, "x@gmail.com", False),
        ({"company_domain": "acme.test"}, "ops@acme.test", True),
        ({"company_domain": "acme.test"}, "ops@mail.acme.test", False),
        ({"company_domain": "acme.test"}, "ops@notacme.test", False),
        ({"company_domain": "acme.test", "team_users": ["x@gmail.com"]}, "x@gmail.com", True),
        ({}, "ops@acme.test", False),
    ],
)
async def test_6_recipients_belong_to_the_company(
    client: BillingClient, settings: dict[str, Any], recipient: str, allowed: bool
) -> None:
    world = await World.begin(client, "2025-01-01")
    if settings:
        await world.settings(**settings)
    if allowed:
        assert (await world.recipe("high_value_overdue_notice", recipients=[recipient])).id
        return
    with pytest.raises(BillingError) as refused:
        await world.recipe("high_value_overdue_notice", recipients=[recipient])
    (violation,) = refused.value.violations
    assert violation.field == "actions[0].recipients[0]"
    assert recipient in violation.description
    assert "team_users" in violation.description


async def test_7_the_customer_is_told_of_the_end(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    await world.recipe("cancellation_confirmation", survey_url="https://acme.test/why")
    customer = await world.customer(email="jenny@example.com")
    subscription = (await world.subscribe(customer, await world.price(3100))).id
    await world.advance("2025-01-20")
    await world.news()
    await world.call("subscriptions", "CancelSubscription", id=subscription)

    assert "customer.subscription.deleted" in await world.news()
    (letter,) = [found for found in await messages(server, world) if found.kind == "cancellation_confirmation"]
    assert (letter.recipient, letter.facts.subscription) == ("jenny@example.com", subscription)
    assert (letter.facts.moment, letter.facts.survey_url) == (at("2025-01-20"), "https://acme.test/why")
    assert letter.facts.plan
    (run,) = await world.runs(subscription=subscription)
    assert word(run, "status") == "completed"


async def test_7_filters_narrow_the_confirmation(server: Server, client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    amount = {"type": "subscription_amount", "more_than": 5_000}
    await world.recipe(
        "cancellation_confirmation", conditions=[amount, {"type": "customer_segment", "segments": ["gold"]}]
    )
    price = await world.price(6_000)
    for metadata in ({"segment": "gold"}, {"segment": "silver"}, {}):
        customer = await world.customer(email="jenny@example.com", metadata=metadata)
        subscription = (await world.subscribe(customer, price)).id
        await world.call("subscriptions", "CancelSubscription", id=subscription)
        assert len(await world.runs(customer=customer)) == int(metadata == {"segment": "gold"})
    assert [found.kind for found in await messages(server, world)].count("cancellation_confirmation") == 1


async def test_new_customers_get_a_credit_and_a_subscription(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price = await world.price(600)
    await world.recipe("new_customer_credit", price=price)
    customer = await world.customer()

    assert (await world.the_customer(customer)).balance == -1_000
    (run,) = await world.runs(customer=customer)
    assert [(word(step, "type"), word(step, "result")) for step in run.steps] == [
        ("create_subscription", "done"),
        ("credit_customer_balance", "done"),
    ]
    found = await world.call("subscriptions", "ListSubscriptions", customer=customer)
    assert [item.price for item in found.subscriptions[0].items] == [price]


async def test_recipes_are_listed_and_say_what_they_take(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    found = {recipe.name: recipe for recipe in (await world.call("automations", "ListRecipes")).recipes}
    assert set(found) == {
        "annual_subscription_dunning",
        "high_value_overdue_notice",
        "cancellation_confirmation",
        "new_customer_credit",
    }
    assert [p.name for p in found["high_value_overdue_notice"].parameters if p.required] == ["recipients"]

    with pytest.raises(BillingError) as refused:
        await world.recipe("high_value_overdue_notice", survey_url="https://acme.test", amount=5)
    assert {violation.field for violation in refused.value.violations} == {
        "parameters.survey_url",
        "parameters.amount",
        "parameters.recipients",
    }
    with pytest.raises(BillingError, match="annual_subscription_dunning"):
        await world.recipe("another")
