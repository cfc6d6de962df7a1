"""Scenarios of metering: what was used is billed in arrears, once, and not while nothing counts (semantics 4)."""

from __future__ import annotations

from typing import Any

import pytest

from billing_client import AlreadyExists, BillingClient, InvalidArgument, LimitReached, NotFound, WrongState
from tests.scenarios.world import World, at, word

START = "2025-01-10T08:15:42"
"""On no whole minute, so that periods begin and end within one."""


async def scene(
    client: BillingClient, amount: int = 10, formula: str = "sum", start: str = START, **price: Any
) -> tuple[World, str, str, str]:
    """A world, a customer with a card, a meter and a monthly price of its usage."""
    world = await World.begin(client, start)
    meter = await world.meter(formula=formula)
    return world, await world.customer(), meter, await world.metered(meter, amount, **price)


def billed(invoice: Any) -> list[tuple[int, int]]:
    """Quantities and amounts of an invoice's lines."""
    return [(line.quantity, line.amount) for line in invoice.lines]


async def test_a_metered_subscription_begins_with_nothing_to_pay_and_bills_in_arrears(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = await world.subscribe(customer, price)
    first = await world.latest(subscription.id)
    assert (word(subscription, "status"), word(first, "status"), first.total) == ("active", "paid", 0)

    for day, value in (("2025-01-10T09:00", 100), ("2025-01-20", 20), ("2025-02-10T08:00", 3)):
        await world.advance(day)
        await world.use(customer, value)
    await world.advance("2025-02-10T08:15:42")
    renewal = await world.latest(subscription.id)

    assert billed(renewal) == [(123, 1230)]
    (line,) = renewal.lines
    assert (line.period_start.seconds, line.period_end.seconds) == (at(START), at("2025-02-10T08:15:42"))
    await world.advance("2025-02-10T09:15:42")
    assert word(await world.latest(subscription.id), "status") == "paid"
    await world.advance("2025-03-10T08:15:42")
    assert billed(await world.latest(subscription.id)) == [(0, 0)]


async def test_periods_begin_and_end_to_the_second(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    await world.use(customer, 1, at(START) - 1)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 10, at(START))
    end = at("2025-02-10T08:15:42")
    await world.advance(end - 1)
    await world.use(customer, 100, end - 1)
    await world.use(customer, 1000, end)
    await world.use(customer, 10000, end + 299)
    await world.advance(end)

    assert billed(await world.latest(subscription)) == [(110, 1100)]
    await world.advance("2025-03-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(11000, 110000)]
    summary = await world.usage(meter, customer, "2025-01-01", "2025-04-01")
    assert (summary.value, summary.event_count) == (11111, 5)


@pytest.mark.parametrize(("formula", "quantity"), [("sum", 12), ("count", 3), ("last", 4)])
async def test_formulas(client: BillingClient, formula: str, quantity: int) -> None:
    world, customer, _, price = await scene(client, formula=formula)
    subscription = (await world.subscribe(customer, price)).id
    await world.advance("2025-01-20T12:00")
    await world.use(customer, 3, "2025-01-20T11:00")
    await world.use(customer, 4, "2025-01-20T12:00")
    await world.use(customer, 5, "2025-01-20T11:30")
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(quantity, quantity * 10)]


async def test_the_last_of_one_second_is_the_one_that_came_last(client: BillingClient) -> None:
    world, customer, _, price = await scene(client, formula="last")
    subscription = (await world.subscribe(customer, price)).id
    for value in (7, 9, 8):
        await world.use(customer, value)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(8, 80)]


async def test_a_sum_below_zero_is_billed_as_zero(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 5)
    await world.use(customer, -8)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(0, 0)]
    assert (await world.usage(meter, customer, "2025-01-01", "2025-02-01")).value == -3


PRICES = [
    ({"billing_scheme": "tiered", "tiers_mode": "graduated"}, 100 * 5 + 50 * 3 + 200),
    ({"billing_scheme": "tiered", "tiers_mode": "volume"}, 150 * 3 + 200),
    ({"transform_quantity": {"divide_by": 40, "round": "up"}}, 4 * 10),
    ({"transform_quantity": {"divide_by": 40, "round": "down"}}, 3 * 10),
]


@pytest.mark.parametrize(("fields", "amount"), PRICES)
async def test_usage_is_summed_before_it_is_priced(client: BillingClient, fields: dict[str, Any], amount: int) -> None:
    world = await World.begin(client, START)
    customer, meter = await world.customer(), await world.meter()
    fields = {"unit_amount": "10", **fields}
    if fields.get("billing_scheme") == "tiered":
        del fields["unit_amount"]
        fields["tiers"] = [{"up_to": 100, "unit_amount": "5"}, {"unit_amount": "3", "flat_amount": 200}]
    made = await world.call(
        "catalog",
        "CreatePrice",
        product=await world.product(),
        currency="usd",
        recurring={"interval": "month", "usage_type": "metered", "meter": meter},
        **fields,
    )
    subscription = (await world.subscribe(customer, made.id)).id
    for _ in range(15):
        await world.use(customer, 10)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(150, amount)]


async def test_usage_rides_beside_what_is_paid_ahead(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, await world.price(3000), price)).id
    assert billed(await world.latest(subscription)) == [(1, 3000), (0, 0)]
    await world.use(customer, 7)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(1, 3000), (7, 70)]


# --- what does not count


async def test_usage_within_a_trial_is_free(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = (await world.subscribe(customer, price, trial_period_days=10)).id
    await world.use(customer, 1)
    preview = await world.call("subscriptions", "PreviewSubscriptionInvoice", subscription=subscription)
    assert billed(preview) == [(0, 0)]
    await world.advance("2025-01-20T08:15:42")
    await world.use(customer, 10)
    assert billed(await world.latest(subscription)) == [(0, 0)]
    await world.advance("2025-02-20T08:15:42")
    assert billed(await world.latest(subscription)) == [(10, 100)]
    assert (await world.usage(meter, customer, "2025-01-01", "2025-03-01")).value == 11


@pytest.mark.parametrize("anchor", ["now", "unchanged"])
async def test_usage_while_paused_is_taken_and_never_billed(client: BillingClient, anchor: str) -> None:
    world = await World.begin(client, START)
    meter = await world.meter()
    price, customer = await world.metered(meter), await world.customer(card=None)
    subscription = (await world.subscribe(customer, price, trial_period_days=10, missing_payment_method="pause")).id
    await world.advance("2025-01-20T08:15:42")
    assert await world.status(subscription) == "paused"
    await world.use(customer, 1)
    await world.advance("2025-02-25T10:00:30")
    await world.use(customer, 10, "2025-02-25T10:00:29")
    await world.card(customer, "pm_card_visa")
    await world.call("subscriptions", "ResumeSubscription", id=subscription, billing_cycle_anchor=anchor)
    assert await world.status(subscription) == "active"
    await world.use(customer, 100)
    await world.advance("2025-02-25T10:00:31")
    await world.use(customer, 1000, "2025-02-25T10:00:29")
    await world.use(customer, 10000, "2025-02-25T10:00:30")

    await world.advance("2025-04-01")
    await world.use(customer, 100000, "2025-03-31")
    usage = [line.quantity for invoice in await world.invoices(subscription) for line in invoice.lines]
    assert sum(usage) == 10100
    assert (await world.usage(meter, customer, "2025-01-01", "2025-05-01")).value == 111111


async def test_what_comes_late_is_billed_until_its_invoice_is_finalized(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 1)
    await world.advance("2025-02-10T08:30")
    draft = await world.latest(subscription)
    assert (word(draft, "status"), billed(draft)) == ("draft", [(1, 10)])
    await world.use(customer, 10, "2025-02-10T08:15:41")
    await world.advance("2025-02-10T09:15:42")
    paid = await world.latest(subscription)
    assert (word(paid, "status"), billed(paid), paid.total) == ("paid", [(11, 110)], 110)
    assert paid.lines[0].description.startswith("11 x")

    await world.use(customer, 100, "2025-02-10T08:15:41")
    await world.advance("2025-03-10T09:15:42")
    assert billed(await world.latest(subscription)) == [(0, 0)]
    assert (await world.usage(meter, customer, "2025-01-01", "2025-04-01")).value == 111


# --- ends and changes


async def test_canceling_bills_usage_when_asked_to(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    kept, dropped = [(await world.subscribe(customer, price)).id for _ in range(2)]
    await world.use(customer, 100)
    await world.advance("2025-01-20T00:00:07")
    await world.use(customer, 20)
    await world.call("subscriptions", "CancelSubscription", id=kept, invoice_now=True)
    await world.call("subscriptions", "CancelSubscription", id=dropped)
    final = await world.latest(kept)
    # What happened in the second of the end is not in [start, end).
    assert (billed(final), word(final, "status")) == ([(100, 1000)], "paid")
    assert [invoice.total for invoice in await world.invoices(dropped)] == [0]


async def test_the_end_of_the_period_bills_usage(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.update(subscription, cancel_at_period_end=True)
    await world.use(customer, 100)
    await world.advance("2025-02-10T08:15:42")
    assert await world.status(subscription) == "canceled"
    assert billed(await world.latest(subscription)) == [(100, 1000)]


async def test_cancel_at_within_the_period_bills_usage_until_then(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    end = at("2025-01-15T00:00:10")
    await world.update(subscription, cancel_at=end)
    await world.advance(end - 1)
    await world.use(customer, 100)
    await world.use(customer, 1, end)
    await world.advance("2025-01-16")
    assert await world.status(subscription) == "canceled"
    assert billed(await world.latest(subscription)) == [(100, 1000)]


async def test_canceling_a_trial_bills_no_usage(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price, trial_period_days=10)).id
    await world.use(customer, 100)
    await world.advance("2025-01-12")
    await world.call("subscriptions", "CancelSubscription", id=subscription, invoice_now=True)
    assert [invoice.total for invoice in await world.invoices(subscription)] == [0]


async def test_a_new_cycle_bills_usage_so_far(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = await world.subscribe(customer, price)
    await world.use(customer, 5)
    await world.advance("2025-01-20T10:00:05")
    await world.update(subscription.id, billing_cycle_anchor_now=True)
    invoice = await world.latest(subscription.id)
    assert (billed(invoice), word(invoice, "status")) == ([(5, 50)], "paid")

    await world.use(customer, 7)
    await world.advance("2025-01-25T10:00:05")
    yearly = await world.metered(meter, 20, "year")
    await world.update(subscription.id, items=[{"id": subscription.items[0].id, "price": yearly}])
    assert billed(await world.latest(subscription.id)) == [(7, 70)]
    await world.use(customer, 3)
    await world.advance("2026-01-25T10:00:05")
    assert billed(await world.latest(subscription.id)) == [(3, 60)]


async def test_a_trial_in_between_bills_usage_so_far(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 5)
    await world.advance("2025-01-20")
    await world.update(subscription, trial_end=at("2025-02-01"))
    assert (5, 50) in billed(await world.latest(subscription))
    await world.use(customer, 70)
    await world.advance("2025-02-01")
    await world.use(customer, 900)
    await world.advance("2025-03-01")
    assert billed(await world.latest(subscription)) == [(900, 9000)]


async def test_an_item_that_is_taken_away_bills_its_usage_with_the_next_invoice(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = await world.subscribe(customer, await world.price(3000), price)
    await world.use(customer, 5)
    await world.advance("2025-01-20")
    await world.update(subscription.id, items=[{"id": subscription.items[1].id, "deleted": True}])
    await world.use(customer, 70)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription.id)) == [(5, 50), (1, 3000)]


async def test_an_item_that_is_added_counts_from_then_on(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = await world.subscribe(customer, await world.price(3000))
    await world.use(customer, 5)
    await world.advance("2025-01-20T01:02:03")
    await world.update(subscription.id, items=[{"price": price}])
    await world.use(customer, 70)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription.id)) == [(1, 3000), (70, 700)]


async def test_a_new_price_on_the_same_meter_bills_the_whole_period(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = await world.subscribe(customer, price)
    await world.use(customer, 5)
    await world.advance("2025-01-20")
    dearer = await world.metered(meter, 20)
    await world.update(subscription.id, items=[{"id": subscription.items[0].id, "price": dearer}])
    await world.use(customer, 70)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription.id)) == [(75, 1500)]


async def test_previews_show_usage_so_far(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 5)
    preview = await world.call("subscriptions", "PreviewSubscriptionInvoice", subscription=subscription)
    assert billed(preview) == [(5, 50)]
    await world.advance("2025-02-05")
    (upcoming,) = await world.events("invoice.upcoming")
    assert billed(upcoming.invoice) == [(5, 50)]


async def test_months_without_a_look_bill_each_its_own_usage(client: BillingClient) -> None:
    world, customer, _, _ = await scene(client, 1000)
    daily = await world.metered(await world.meter("visits"), 1000, "day")
    subscription = (await world.subscribe(customer, daily)).id
    await world.use(customer, 1, event_name="visits")
    await world.use(customer, 2, at(START) + 299, event_name="visits")
    await world.advance(at(START) + 5 * 86_400)
    found = [line.quantity for invoice in await world.invoices(subscription) for line in invoice.lines]
    assert found == [0, 3, 0, 0, 0, 0]


async def test_forecasts_go_by_usage_so_far(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 100)
    told = await world.call("subscriptions", "ForecastSubscription", id=subscription, until="2025-05-01")
    await world.news()
    await world.advance("2025-05-01")
    happened = [event.type for event in await world.events() if event.created.seconds > at(START)]
    foretold = [entry.type for entry in getattr(told, "events", [])]
    assert [type_ for type_ in happened if type_.startswith("invoice")] == [
        type_ for type_ in foretold if type_.startswith("invoice")
    ]


# --- what is reported


async def test_a_repeated_identifier_counts_once_and_says_so(client: BillingClient) -> None:
    world, customer, meter, _ = await scene(client)
    other = await world.meter("visits")
    first = await world.use(customer, 5, identifier="a")
    again = await world.use(customer, 7, identifier="a")
    elsewhere = await world.use(customer, 9, identifier="a", event_name="visits")
    assert (first.duplicate, again.duplicate, elsewhere.duplicate) == (False, True, False)
    assert (first.meter, elsewhere.meter, first.event.timestamp.seconds) == (meter, other, at(START))
    assert (await world.usage(meter, customer, "2025-01-01", "2025-02-01")).value == 5
    assert (await world.usage(other, customer, "2025-01-01", "2025-02-01")).value == 9


async def test_the_time_of_an_event_goes_by_the_test_clock(client: BillingClient) -> None:
    world, customer, _, _ = await scene(client)
    now = at(START)
    await world.use(customer, 1, now - 35 * 86_400)
    await world.use(customer, 1, now + 300)
    for moment in (now - 35 * 86_400 - 1, now + 301):
        with pytest.raises(InvalidArgument) as refused:
            await world.use(customer, 1, moment)
        assert (refused.value.reason, refused.value.violations[0].field) == ("TIME_OUT_OF_RANGE", "event.timestamp")


async def test_refusals(client: BillingClient) -> None:
    world, customer, meter, _ = await scene(client)
    with pytest.raises(NotFound, match="nothing"):
        await world.use(customer, event_name="nothing")
    with pytest.raises(NotFound, match="cus_none"):
        await world.use("cus_none")
    with pytest.raises(InvalidArgument, match="value"):
        await world.use(customer, 10**12 + 1)
    with pytest.raises(InvalidArgument, match="identifier"):
        await world.use(customer, identifier="x" * 101)
    with pytest.raises(InvalidArgument, match="value"):
        await world.call("meters", "ReportMeterEvent", event={"event_name": "calls", "customer": customer})
    await world.call("meters", "DeactivateMeter", id=meter)
    with pytest.raises(WrongState) as refused:
        await world.use(customer)
    assert refused.value.reason == "METER_INACTIVE"
    with pytest.raises(WrongState):
        await world.metered(meter)


async def test_meters_share_no_event_name_while_active(client: BillingClient) -> None:
    world, customer, meter, _ = await scene(client)
    with pytest.raises(AlreadyExists):
        await world.meter()
    await world.call("meters", "DeactivateMeter", id=meter)
    second = await world.meter()
    assert (await world.use(customer)).meter == second
    with pytest.raises(AlreadyExists):
        await world.call("meters", "ReactivateMeter", id=meter)
    await world.call("meters", "DeactivateMeter", id=second)
    found = await world.call("meters", "ReactivateMeter", id=meter)
    assert (word(found, "status"), found.HasField("deactivated_at")) == ("active", False)
    assert await world.news() != []
    types = [event.type for event in await world.events("billing.meter.*")]
    assert types == [
        f"billing.meter.{what}" for what in ("created", "deactivated", "created", "deactivated", "reactivated")
    ]


async def test_inactive_meters_still_bill_what_was_used(client: BillingClient) -> None:
    world, customer, meter, price = await scene(client)
    subscription = (await world.subscribe(customer, price)).id
    await world.use(customer, 5)
    await world.call("meters", "DeactivateMeter", id=meter)
    await world.advance("2025-02-10T08:15:42")
    assert billed(await world.latest(subscription)) == [(5, 50)]


async def test_a_price_names_a_meter_that_exists(client: BillingClient) -> None:
    world = await World.begin(client, START)
    with pytest.raises(NotFound, match="mtr_none"):
        await world.metered("mtr_none")
    with pytest.raises(InvalidArgument):
        await world.price(10, recurring={"usage_type": "metered"})


async def test_windows_take_the_event_that_came_last(client: BillingClient) -> None:
    world = await World.begin(client, START)
    meter = await world.meter(event_time_window="hour")
    customer, price = await world.customer(), await world.metered(meter)
    subscription = (await world.subscribe(customer, price)).id
    await world.advance("2025-01-10T12:00")
    for value, moment in ((5, "2025-01-10T10:59"), (7, "2025-01-10T10:01"), (1, "2025-01-10T11:30")):
        await world.use(customer, value, moment)
    await world.use(customer, 100, "2025-01-10T08:10")
    await world.advance("2025-02-10T08:15:42")
    # The window of 08:00 holds an event from before the subscription.
    assert billed(await world.latest(subscription)) == [(8, 80)]


async def test_summaries_by_windows(client: BillingClient) -> None:
    world, customer, meter, _ = await scene(client)
    for value, moment in ((1, "2025-01-08T23:59:59"), (2, "2025-01-09"), (4, "2025-01-09T23:30"), (8, "2025-01-10")):
        await world.use(customer, value, moment)
    found = await world.usage(meter, customer, "2025-01-08T12:00", "2025-01-10T00:30", "day")
    shown = [(w.start.seconds, w.end.seconds, w.value, w.event_count) for w in found.windows]
    assert shown == [
        (at("2025-01-08T12:00"), at("2025-01-09"), 1, 1),
        (at("2025-01-09"), at("2025-01-10"), 6, 2),
        (at("2025-01-10"), at("2025-01-10T00:30"), 8, 1),
    ]
    assert (found.value, found.event_count) == (15, 4)
    hours = await world.usage(meter, customer, "2025-01-09", "2025-01-10", "hour")
    assert [(w.start.seconds, w.value) for w in hours.windows] == [(at("2025-01-09"), 2), (at("2025-01-09T23:00"), 4)]
    for start, end in (
        ("2025-01-09T00:00:01", "2025-01-10"),
        ("2025-01-10", "2025-01-09"),
        ("2000-01-01", "2025-01-01"),
    ):
        with pytest.raises(InvalidArgument):
            await world.usage(meter, customer, start, end, "hour")


async def test_nobody_reports_for_a_clock_on_its_way(client: BillingClient) -> None:
    world, customer, _, price = await scene(client)
    await world.subscribe(customer, price)
    moving = world.client.advance_test_clock(world.clock, at("2045-01-01"))
    await anext(moving)
    with pytest.raises(LimitReached) as refused:
        await world.use(customer)
    assert refused.value.reason == "TEST_CLOCK_ADVANCING"
    await moving.aclose()
