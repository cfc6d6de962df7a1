"""The property of forecasts: a test clock then does exactly what was told.

Many subscriptions of all kinds are forecast and then lived through on one clock; every event is compared whole,
only ids are replaced by the order in which they first appear. BILLING_FORECASTS sets how many, by default few and
always the same; a longer run looks for new ones. BILLING_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict

from billing.v1.event_model_pb2 import Event
from billing_client import BillingClient
from tests.scenarios.world import World, at

COUNT = int(os.environ.get("BILLING_FORECASTS", "120"))
SEED = int(os.environ.get("BILLING_SEED", "0")) or (
    random.randrange(1, 10**9) if "BILLING_FORECASTS" in os.environ else 1
)
AT_ONCE = 32
DAY = 86_400
ID = re.compile(r"\b(in|il|ii|pi|si|cbtxn|sub|sub_sched|upcoming_sub)_[0-9a-z]+\b")

UNFORESEEN = frozenset({"clientSecret", "id", "message"})
"""What no forecast can know: secrets, ids, and the words in which a gateway declines."""

CARDS = {
    "pm_card_visa": {"payments": "succeed"},
    "pm_card_chargeCustomerFail": {"payments": "fail"},
    "pm_card_visa_chargeDeclined": {"payments": "fail"},
}


def _life(chance: random.Random, start: int) -> dict[str, Any]:
    """A random subscription: how it begins, is collected and may end."""
    fields: dict[str, Any] = {}
    if chance.random() < 0.25:
        fields |= {"collection_method": "send_invoice", "days_until_due": chance.choice([0, 7, 30, 45])}
    if chance.random() < 0.4:
        fields["trial_period_days"] = chance.choice([1, 3, 7, 14, 30])
        if "collection_method" not in fields:
            fields["missing_payment_method"] = chance.choice(["create_invoice", "cancel", "pause"])
    elif chance.random() < 0.3:
        fields["billing_cycle_anchor"] = start + chance.randrange(1, 6 * DAY)
        fields["proration_behavior"] = chance.choice(["create_prorations", "none"])
    if chance.random() < 0.2:
        fields["cancel_at"] = start + chance.randrange(DAY, 150 * DAY)
    elif chance.random() < 0.1:
        fields["cancel_at_period_end"] = True
    return fields


def _phases(chance: random.Random, prices: list[str]) -> list[dict[str, Any]]:
    """Random phases: prices, lengths, trials, anchors, ways to collect and to prorate."""
    phases = []
    for _ in range(chance.randrange(1, 4)):
        phase: dict[str, Any] = {
            "items": [{"price": chance.choice(prices), "quantity": chance.choice([0, 1, 3])}],
            "proration_behavior": chance.choice(["create_prorations", "always_invoice", "none"]),
        }
        if chance.random() < 0.5:
            phase["iterations"] = chance.randrange(1, 4)
        else:
            unit = chance.choice(["day", "week", "month"])
            phase["duration"] = {"interval": unit, "interval_count": chance.randrange(1, 6)}
        if chance.random() < 0.2:
            phase["trial"] = True
        elif chance.random() < 0.3:
            phase["billing_cycle_anchor"] = "phase_start"
        if chance.random() < 0.3:
            phase |= {"collection_method": "send_invoice", "days_until_due": chance.choice([0, 10, 30])}
        phases.append(phase)
    return phases


def _known(events: Iterable[Event]) -> list[Any]:
    """Events as plain values, with ids by the order of their first appearance and without what is secret."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"{found[1]}#{len(names)}")

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items() if key not in UNFORESEEN}
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        return ID.sub(named, value) if isinstance(value, str) else value

    kept = []
    for event in events:
        values = MessageToDict(event)
        for key in ("position", "cause"):
            values.pop(key, None)
        kept.append(plain(values))
    return kept


def _difference(foreseen: Any, seen: Any, path: str = "") -> str:
    """Where two plain values differ first."""
    if isinstance(foreseen, dict) and isinstance(seen, dict):
        for key in (*foreseen, *seen):
            if foreseen.get(key) != seen.get(key):
                return _difference(foreseen.get(key), seen.get(key), f"{path}.{key}")
    return f"{path}: told {foreseen}, happened {seen}"


async def _begin(world: World, chance: random.Random, prices: list[str]) -> tuple[str, str, str] | None:
    card = chance.choice([*CARDS, None])
    customer = await world.customer(card)
    if chance.random() < 0.2:
        amount = chance.choice([-100, -5000, 40, 700])
        await world.call("customers", "AdjustBalance", customer=customer, amount=amount, currency="usd")
    if chance.random() < 0.3:
        made = await world.call(
            "schedules",
            "CreateSubscriptionSchedule",
            customer=customer,
            phases=_phases(chance, prices),
            end_behavior=chance.choice(["release", "cancel"]),
        )
        await _pause(world, chance, made.subscription)
        return customer, made.subscription, card or "pm_card_chargeCustomerFail"
    fields = _life(chance, world.now)
    items = [{"price": chance.choice(prices), "quantity": chance.choice([0, 1, 3])}]
    made = await world.subscribe(customer, items=items, **fields)
    incomplete = 1
    if made.status != incomplete:
        await _pause(world, chance, made.id)
        if chance.random() < 0.2:
            await _take_over(world, chance, made.id, prices)
    return customer, made.id, card or "pm_card_chargeCustomerFail"


async def _pause(world: World, chance: random.Random, subscription: str) -> None:
    """Now and then collection is paused from the beginning."""
    if chance.random() < 0.85:
        return
    pause: dict[str, Any] = {"behavior": chance.choice(["void", "keep_as_draft", "mark_uncollectible"])}
    if chance.random() < 0.5:
        pause["resumes_at"] = world.now + chance.randrange(DAY, 90 * DAY)
    await world.update(subscription, pause_collection=pause)


async def _take_over(world: World, chance: random.Random, subscription: str, prices: list[str]) -> None:
    """Put a schedule over a subscription, and phases behind the current one."""
    made = await world.call("schedules", "CreateSubscriptionSchedule", from_subscription=subscription)
    current = made.phases[0]
    kept: dict[str, Any] = {
        "items": [{"price": item.price, "quantity": item.quantity} for item in current.items],
        "end_date": current.end_date.seconds,
    }
    if current.HasField("trial_end"):
        kept["trial_end"] = current.trial_end.seconds
    await world.call(
        "schedules",
        "UpdateSubscriptionSchedule",
        id=made.id,
        phases=[kept, *_phases(chance, prices)],
        end_behavior=chance.choice(["release", "cancel"]),
    )


async def test_a_clock_does_what_the_forecast_told(client: BillingClient) -> None:
    chance = random.Random(SEED)
    world = await World.begin(client, "2025-01-31T09:30")
    await world.settings(
        subscription_final_action=chance.choice(["cancel", "unpaid", "past_due"]),
        invoice_final_action=chance.choice(["leave_open", "uncollectible", "void"]),
    )
    prices = [
        await world.price(amount, interval) for amount, interval in ((3100, "month"), (999, "week"), (0, "month"))
    ]
    prices.append(await world.price(12_000, "month", recurring={"interval_count": 3}))
    lives = []
    for begun in range(0, COUNT, AT_ONCE):
        size = min(AT_ONCE, COUNT - begun)
        lives += await asyncio.gather(*(_begin(world, random.Random(chance.random()), prices) for _ in range(size)))
    until = at("2025-07-31T12:00")
    head = (await client.event_log.ListEvents(_newest())).events[0].position
    told = {}
    for customer, subscription, card in filter(None, lives):
        answer = await world.call("subscriptions", "ForecastSubscription", id=subscription, until=until, **CARDS[card])
        told[customer] = _known(answer.events)
    assert (await client.event_log.ListEvents(_newest())).events[0].position == head, "a forecast wrote something"
    await world.advance(until)
    happened: dict[str, list[Event]] = defaultdict(list)
    async for event in client.events(after_position=head, stop_when_caught_up=True):
        happened[event.customer].append(event)
    compared = 0
    for customer, events in told.items():
        lived = _known(happened[customer])
        for index, (foreseen, seen) in enumerate(zip(events, lived, strict=False)):
            assert foreseen == seen, f"seed {SEED}, {customer}, event {index}: {_difference(foreseen, seen)}"
        assert len(events) == len(lived), f"seed {SEED}, {customer}: {len(events)} told, {len(lived)} happened"
        compared += len(events)
    assert compared > 3 * COUNT


def _newest() -> Any:
    from billing.v1.event_service_pb2 import ListEventsRequest

    return ListEventsRequest(page_size=1)
