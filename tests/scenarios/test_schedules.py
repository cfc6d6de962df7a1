"""Subscription schedules, told through the RPCs: phases, their prices, trials, anchors, ends, and paused collection."""

from __future__ import annotations

from typing import Any

import pytest

from billing_client import BillingClient, InvalidArgument, WrongState
from tests.scenarios.world import BAD, World, at, word

DAY = 86_400


async def schedule(world: World, customer: str, *phases: dict[str, Any], **fields: Any) -> Any:
    return await world.call("schedules", "CreateSubscriptionSchedule", customer=customer, phases=list(phases), **fields)


async def scheduled(world: World, identity: str) -> Any:
    return await world.call("schedules", "GetSubscriptionSchedule", id=identity)


def phase(price: str, **fields: Any) -> dict[str, Any]:
    """A phase of one price, a billing period long unless it says otherwise."""
    ends = {"end_date", "iterations", "duration"} & fields.keys()
    return {"items": [{"price": price}]} | ({} if ends else {"iterations": 1}) | fields


async def totals(world: World, subscription: str) -> list[tuple[int, int]]:
    return [(invoice.created.seconds, invoice.total) for invoice in await world.invoices(subscription)]


async def test_a_schedule_starts_later(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    customer, price = await world.customer(), await world.price(3100)
    made = await schedule(world, customer, phase(price, iterations=2), start_date="2025-02-01")
    assert (word(made, "status"), made.subscription) == ("not_started", "")
    assert made.phases[0].end_date.seconds == at("2025-04-01")
    await world.news()
    await world.advance("2025-02-01")
    found = await scheduled(world, made.id)
    assert word(found, "status") == "active"
    subscription = await world.subscription(found.subscription)
    assert (word(subscription, "status"), subscription.schedule) == ("active", made.id)
    invoice = await world.latest(subscription.id)
    assert (word(invoice, "status"), invoice.total, word(invoice, "billing_reason")) == (
        "draft",
        3100,
        "subscription_create",
    )
    told = [name for name in await world.news() if not name.startswith("test_helpers")]
    assert told == [
        "customer.updated",
        "customer.subscription.created",
        "invoice.created",
        "subscription_schedule.updated",
    ] or told == ["customer.subscription.created", "invoice.created", "subscription_schedule.updated"]
    await world.advance("2025-02-01T01:00")
    assert word(await world.latest(subscription.id), "status") == "paid"
    await world.advance("2025-04-02")
    found = await scheduled(world, made.id)
    assert (word(found, "status"), found.subscription, found.released_subscription) == (
        "released",
        "",
        subscription.id,
    )
    lives_on = await world.subscription(subscription.id)
    assert (word(lives_on, "status"), lives_on.schedule) == ("active", "")
    assert [total for _, total in await totals(world, subscription.id)] == [3100] * 3
    (expiring,) = await world.events("subscription_schedule.expiring")
    assert expiring.created.seconds == at("2025-04-01") - 7 * DAY
    assert [event.type for event in await world.events("subscription_schedule.*")] == [
        "subscription_schedule.created",
        "subscription_schedule.updated",
        "subscription_schedule.expiring",
        "subscription_schedule.released",
    ]


async def test_a_schedule_starts_now_with_a_draft(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await schedule(world, await world.customer(BAD), phase(await world.price(3100)))
    assert word(made, "status") == "active"
    assert word(await world.latest(made.subscription), "status") == "draft"
    assert await world.status(made.subscription) == "active"
    await world.advance("2025-01-01T01:00")
    assert await world.status(made.subscription) == "past_due"


async def test_the_price_rises_at_the_end_of_a_phase(client: BillingClient) -> None:
    """The phase changes before the renewal of the same second: the new period costs the new price, no prorations."""
    world = await World.begin(client, "2025-01-31")
    low, high = await world.price(1000), await world.price(2000)
    made = await schedule(world, await world.customer(), phase(low, iterations=3), phase(high, iterations=2))
    assert [entry.end_date.seconds for entry in made.phases] == [at("2025-04-30"), at("2025-06-30")]
    await world.advance("2025-07-01")
    assert await totals(world, made.subscription) == [
        (at("2025-01-31"), 1000),
        (at("2025-02-28"), 1000),
        (at("2025-03-31"), 1000),
        (at("2025-04-30"), 2000),
        (at("2025-05-31"), 2000),
        (at("2025-06-30"), 2000),
    ]
    assert not any(line.proration for invoice in await world.invoices(made.subscription) for line in invoice.lines)


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ("create_prorations", [("2025-04-01", 3000), ("2025-05-01", 6000 + 3000 // 2)]),
        ("always_invoice", [("2025-04-01", 3000), ("2025-04-16", 3000 // 2), ("2025-05-01", 6000)]),
        ("none", [("2025-04-01", 3000), ("2025-05-01", 6000)]),
    ],
)
async def test_the_price_rises_within_a_period(
    client: BillingClient, behavior: str, expected: list[tuple[str, int]]
) -> None:
    world = await World.begin(client, "2025-04-01")
    low, high = await world.price(3000), await world.price(6000)
    made = await schedule(
        world,
        await world.customer(),
        phase(low, end_date="2025-04-16"),
        phase(high, iterations=1, proration_behavior=behavior),
    )
    await world.advance("2025-04-16")
    if behavior == "always_invoice":
        invoice = await world.latest(made.subscription)
        assert (word(invoice, "status"), word(invoice, "billing_reason")) == ("draft", "subscription_update")
    await world.advance("2025-05-01T01:00")
    assert await totals(world, made.subscription) == [(at(day), total) for day, total in expected]
    assert {word(invoice, "status") for invoice in await world.invoices(made.subscription)} == {"paid"}


async def test_from_subscription_and_a_later_price(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    low, high = await world.price(1000), await world.price(2500)
    subscription = await world.subscribe(await world.customer(), low)
    made = await world.call("schedules", "CreateSubscriptionSchedule", from_subscription=subscription.id)
    assert word(made, "status") == "active"
    assert (made.current_phase.start_date.seconds, made.current_phase.end_date.seconds) == (
        at("2025-01-01"),
        at("2025-02-01"),
    )
    with pytest.raises(WrongState) as refused:
        await world.call("schedules", "CreateSubscriptionSchedule", from_subscription=subscription.id)
    assert refused.value.reason == "SUBSCRIPTION_SCHEDULED"
    changed = await world.call(
        "schedules",
        "UpdateSubscriptionSchedule",
        id=made.id,
        phases=[phase(low, end_date="2025-02-01"), phase(high, iterations=2)],
        etag=made.etag,
    )
    assert changed.phases[1].end_date.seconds == at("2025-04-01")
    with pytest.raises(WrongState):
        await world.update(subscription.id, cancel_at_period_end=True)
    await world.update(subscription.id, items=[{"price": await world.price(700), "quantity": 1}])
    await world.advance("2025-02-02")
    found = await world.subscription(subscription.id)
    assert [item.price for item in found.items] == [high], "a phase overwrites direct changes"
    assert (await totals(world, subscription.id))[-1][0] == at("2025-02-01")


async def test_released_by_hand(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    low, high = await world.price(1000), await world.price(2500)
    made = await schedule(world, await world.customer(), phase(low), phase(high), end_behavior="cancel")
    await world.advance("2025-02-10")
    assert (await world.subscription(made.subscription)).cancel_at.seconds == at("2025-03-01")
    released = await world.call("schedules", "ReleaseSubscriptionSchedule", id=made.id)
    assert (word(released, "status"), released.released_subscription) == ("released", made.subscription)
    found = await world.subscription(made.subscription)
    assert (found.cancel_at.seconds, found.schedule) == (0, "")
    with pytest.raises(WrongState) as refused:
        await world.call("schedules", "ReleaseSubscriptionSchedule", id=made.id)
    assert refused.value.reason == "SCHEDULE_ENDED"
    await world.advance("2025-04-02")
    assert [total for _, total in await totals(world, made.subscription)] == [1000, 2500, 2500, 2500]


async def test_released_with_its_end(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await schedule(world, await world.customer(), phase(await world.price(1000)), end_behavior="cancel")
    await world.call("schedules", "ReleaseSubscriptionSchedule", id=made.id, preserve_cancel_date=True)
    await world.advance("2025-02-02")
    assert await world.status(made.subscription) == "canceled"


async def test_completed_and_canceled_with_the_last_phase(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    made = await schedule(
        world, await world.customer(), phase(await world.price(1000), iterations=3), end_behavior="cancel"
    )
    await world.advance("2025-04-02")
    found = await scheduled(world, made.id)
    assert (word(found, "status"), found.completed_at.seconds) == ("completed", at("2025-04-01"))
    subscription = await world.subscription(made.subscription)
    assert (word(subscription, "status"), subscription.ended_at.seconds) == ("canceled", at("2025-04-01"))
    assert [total for _, total in await totals(world, made.subscription)] == [1000] * 3
    told = await world.events("subscription_schedule.*", "customer.subscription.deleted")
    assert [event.type for event in told][-2:] == ["customer.subscription.deleted", "subscription_schedule.completed"]


async def test_canceled_by_hand(client: BillingClient) -> None:
    """Canceling the schedule cancels the subscription, by default with a credit for the time that is left."""
    world = await World.begin(client, "2025-04-01")
    customer, price = await world.customer(), await world.price(3000)
    made = await schedule(world, customer, phase(price))
    await world.advance("2025-04-16")
    canceled = await world.call("schedules", "CancelSubscriptionSchedule", id=made.id)
    assert word(canceled, "status") == "canceled"
    assert await world.status(made.subscription) == "canceled"
    assert (await world.the_customer(customer)).balance == -1500
    later = await schedule(world, customer, phase(price), start_date="2025-06-01")
    assert word(await world.call("schedules", "CancelSubscriptionSchedule", id=later.id), "status") == "canceled"
    await world.advance("2025-06-02")
    assert (await scheduled(world, later.id)).subscription == ""


async def test_a_canceled_subscription_ends_its_schedule(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    made = await schedule(world, await world.customer(), phase(await world.price(3000)))
    await world.call("subscriptions", "CancelSubscription", id=made.subscription)
    assert word(await scheduled(world, made.id), "status") == "canceled"
    assert len(await world.events("subscription_schedule.canceled")) == 1


async def test_missing_payments_abort_a_schedule(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    await world.settings(subscription_final_action="cancel")
    made = await schedule(world, await world.customer(BAD), phase(await world.price(3000), iterations=6))
    await world.advance("2025-04-20")
    assert word(await scheduled(world, made.id), "status") == "canceled"
    assert len(await world.events("subscription_schedule.aborted")) == 1
    assert not await world.events("subscription_schedule.canceled")


async def test_a_trial_phase_then_a_paid_one(client: BillingClient) -> None:
    world = await World.begin(client, "2025-03-01")
    price = await world.price(3100)
    made = await schedule(
        world,
        await world.customer(),
        phase(price, duration={"interval": "day", "interval_count": 14}, trial=True),
        phase(price, iterations=2),
    )
    assert made.phases[0].trial_end.seconds == at("2025-03-15")
    assert made.phases[1].end_date.seconds == at("2025-05-15")
    assert await world.status(made.subscription) == "trialing"
    invoice = await world.latest(made.subscription)
    assert (word(invoice, "status"), invoice.total) == ("paid", 0)
    await world.advance("2025-03-15")
    assert await world.status(made.subscription) == "active"
    await world.advance("2025-05-16")
    assert await totals(world, made.subscription) == [
        (at("2025-03-01"), 0),
        (at("2025-03-15"), 3100),
        (at("2025-04-15"), 3100),
        (at("2025-05-15"), 3100),
    ]
    (notice,) = await world.events("customer.subscription.trial_will_end")
    assert notice.created.seconds == at("2025-03-12")


async def test_a_trial_in_the_middle(client: BillingClient) -> None:
    """A phase with a trial stops the running period, gives back the rest and moves the anchor to its end."""
    world = await World.begin(client, "2025-04-01")
    customer, price = await world.customer(), await world.price(3000)
    made = await schedule(
        world,
        customer,
        phase(price, end_date="2025-04-16"),
        phase(price, trial_end="2025-05-01", end_date="2025-06-01"),
    )
    await world.advance("2025-04-16T01:00")
    assert await world.status(made.subscription) == "trialing"
    assert (await world.the_customer(customer)).balance == -1500
    await world.advance("2025-05-01T01:00")
    assert await world.status(made.subscription) == "active"
    invoice = await world.latest(made.subscription)
    assert (invoice.total, invoice.amount_due) == (3000, 1500)


async def test_a_phase_starts_a_new_cycle(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    price = await world.price(3000)
    made = await schedule(
        world,
        await world.customer(),
        phase(price, end_date="2025-04-16"),
        phase(price, iterations=2, billing_cycle_anchor="phase_start"),
    )
    assert made.phases[1].end_date.seconds == at("2025-06-16")
    await world.advance("2025-05-17")
    assert await totals(world, made.subscription) == [
        (at("2025-04-01"), 3000),
        (at("2025-04-16"), 3000 - 1500),
        (at("2025-05-16"), 3000),
    ]
    assert (await world.subscription(made.subscription)).billing_cycle_anchor.seconds == at("2025-04-16")


async def test_another_interval_starts_a_new_cycle(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    monthly, yearly = await world.price(3000), await world.price(30_000, "year")
    made = await schedule(world, await world.customer(), phase(monthly, iterations=2), phase(yearly))
    await world.advance("2026-02-01")
    assert made.phases[1].end_date.seconds == at("2026-03-01")
    assert await totals(world, made.subscription) == [
        (at("2025-01-01"), 3000),
        (at("2025-02-01"), 3000),
        (at("2025-03-01"), 30_000),
    ]


async def test_each_phase_collects_in_its_way(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price = await world.price(3000)
    made = await schedule(
        world,
        await world.customer(),
        phase(price),
        phase(price, collection_method="send_invoice", days_until_due=10),
        phase(price),
    )
    await world.advance("2025-03-02")
    invoices = await world.invoices(made.subscription)
    assert [word(invoice, "collection_method") for invoice in invoices] == [
        "charge_automatically",
        "send_invoice",
        "charge_automatically",
    ]
    assert invoices[1].due_date.seconds == at("2025-02-11")
    assert [word(invoice, "status") for invoice in invoices] == ["paid", "open", "paid"]


async def test_what_a_phase_sets_and_bills_once(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    price, fee = await world.price(3000), await world.one_time(500)
    customer = await world.customer()
    first = (await world.the_customer(customer)).default_payment_method
    made = await schedule(
        world,
        customer,
        phase(price, metadata={"plan": "first", "kept": "yes"}),
        phase(
            price,
            items=[{"price": price, "quantity": 3}],
            add_invoice_items=[{"price": fee, "quantity": 2}],
            metadata={"plan": "second"},
            default_payment_method=first,
            description="the second",
        ),
    )
    before = await world.subscription(made.subscription)
    assert dict(before.metadata) == {"plan": "first", "kept": "yes"}
    await world.advance("2025-01-20")
    await world.card(customer, BAD)
    await world.advance("2025-02-01")
    after = await world.subscription(made.subscription)
    assert dict(after.metadata) == {"plan": "second", "kept": "yes"}
    assert (after.description, after.default_payment_method) == ("the second", first)
    assert (after.items[0].id, after.items[0].quantity) == (before.items[0].id, 3)
    assert (await world.latest(made.subscription)).total == 9000 + 1000
    await world.advance("2025-02-01T01:00")
    assert word(await world.latest(made.subscription), "status") == "paid"


@pytest.mark.parametrize(
    ("behavior", "status"), [("void", "void"), ("keep_as_draft", "draft"), ("mark_uncollectible", "uncollectible")]
)
async def test_phases_change_while_collection_is_paused(client: BillingClient, behavior: str, status: str) -> None:
    """S4: phase changes still apply, nothing is collected until the pause is unset by hand."""
    world = await World.begin(client, "2025-01-01")
    low, high = await world.price(1000), await world.price(2000)
    made = await schedule(
        world, await world.customer(), phase(low), phase(high, iterations=2, proration_behavior="always_invoice")
    )
    await world.advance("2025-01-15")
    await world.update(made.subscription, pause_collection={"behavior": behavior})
    await world.advance("2025-02-02")
    found = await world.subscription(made.subscription)
    assert (word(found, "status"), found.items[0].price) == ("active", high)
    invoice = await world.latest(made.subscription)
    assert (invoice.total, word(invoice, "status"), invoice.amount_paid) == (2000, status, 0)
    await world.update(made.subscription, update_mask={"paths": ["pause_collection"]})
    await world.advance("2025-03-02")
    assert word(await world.latest(made.subscription), "status") == "paid"
    assert word(await world.invoice(invoice.id), "status") == status


async def test_a_phase_change_drops_a_pending_update(client: BillingClient) -> None:
    world = await World.begin(client, "2025-01-01")
    low, high = await world.price(1000), await world.price(2000)
    customer = await world.customer()
    made = await schedule(world, customer, phase(low, end_date="2025-01-15T12:00"), phase(high))
    await world.advance("2025-01-15")
    await world.card(customer, BAD)
    item = (await world.subscription(made.subscription)).items[0].id
    await world.update(
        made.subscription,
        items=[{"id": item, "quantity": 5}],
        payment_behavior="pending_if_incomplete",
        proration_behavior="always_invoice",
    )
    assert (await world.subscription(made.subscription)).HasField("pending_update")
    await world.advance("2025-01-15T12:00")
    found = await world.subscription(made.subscription)
    assert not found.HasField("pending_update")
    assert (found.items[0].price, found.items[0].quantity) == (high, 1)
    assert len(await world.events("customer.subscription.pending_update_expired")) == 1


async def test_changes_of_the_current_phase_take_effect_at_once(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    low, high = await world.price(3000), await world.price(6000)
    made = await schedule(world, await world.customer(), phase(low))
    await world.advance("2025-04-16")
    changed = await world.call(
        "schedules",
        "UpdateSubscriptionSchedule",
        id=made.id,
        phases=[phase(high, end_date="2025-05-01"), phase(low)],
        end_behavior="cancel",
    )
    assert [entry.items[0].price for entry in changed.phases] == [high, low]
    found = await world.subscription(made.subscription)
    assert (found.items[0].price, found.cancel_at.seconds) == (high, 0)
    await world.advance("2025-05-02")
    assert (await world.subscription(made.subscription)).cancel_at.seconds == at("2025-06-01")
    assert await totals(world, made.subscription) == [(at("2025-04-01"), 3000), (at("2025-05-01"), 1500 + 3000)]


async def test_the_end_cuts_the_last_period(client: BillingClient) -> None:
    """A last phase that ends within a period: that period is shortened and billed in proportion."""
    world = await World.begin(client, "2025-04-01")
    made = await schedule(
        world, await world.customer(), phase(await world.price(3100), end_date="2025-05-11"), end_behavior="cancel"
    )
    await world.advance("2025-05-12")
    assert await totals(world, made.subscription) == [(at("2025-04-01"), 3100), (at("2025-05-01"), 1000)]
    assert await world.status(made.subscription) == "canceled"


async def test_the_preview_knows_the_next_phase(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    low, high = await world.price(1000), await world.price(2000)
    made = await schedule(world, await world.customer(), phase(low), phase(high))
    preview = await world.call("subscriptions", "PreviewSubscriptionInvoice", subscription=made.subscription)
    assert preview.total == 2000
    await world.advance("2025-05-02")
    (told,) = await world.events("invoice.upcoming")
    assert told.invoice.total == 2000


async def test_lists(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    customer, other, price = await world.customer(), await world.customer(), await world.price(1000)
    first = await schedule(world, customer, phase(price))
    second = await schedule(world, customer, phase(price), start_date="2025-05-01")
    third = await schedule(world, other, phase(price))
    await world.call("schedules", "ReleaseSubscriptionSchedule", id=first.id)

    async def listed(**fields: Any) -> list[str]:
        page = await world.call("schedules", "ListSubscriptionSchedules", **fields)
        return [entry.id for entry in page.subscription_schedules]

    assert await listed() == [third.id, second.id, first.id]
    assert await listed(customer=customer) == [second.id, first.id]
    assert await listed(statuses=["not_started"]) == [second.id]
    assert await listed(subscription=first.subscription) == [first.id]


async def test_every_violation_is_told_with_its_path(client: BillingClient) -> None:
    world = await World.begin(client, "2025-04-01")
    customer, price, fee = await world.customer(), await world.price(1000), await world.one_time(500)
    euro = await world.price(1000, currency="eur")
    with pytest.raises(InvalidArgument) as refused:
        await schedule(
            world,
            customer,
            phase(price, start_date="2025-05-01", trial=True, billing_cycle_anchor="phase_start"),
            {"items": [{"price": price}]},
            phase(price, days_until_due=3, trial=True, trial_end="2025-06-01"),
        )
    assert [violation.field for violation in refused.value.violations] == [
        "phases[0].billing_cycle_anchor",
        "phases[1].end_date",
        "phases[2].trial_end",
        "phases[2].days_until_due",
        "phases[0].start_date",
    ]
    with pytest.raises(InvalidArgument) as refused:
        await schedule(
            world,
            customer,
            phase(price, end_date="2025-04-10", trial_end="2025-05-01"),
            phase(euro, start_date="2025-06-01"),
            phase(fee),
        )
    assert [violation.field for violation in refused.value.violations] == [
        "phases[0].trial_end",
        "phases[1].start_date",
        "phases[1].items[0].price",
        "phases[2].items[0].price",
    ]
