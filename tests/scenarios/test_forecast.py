"""The property of forecasts: a test clock then does exactly what was told.

Many subscriptions of all kinds are forecast and then lived through on one clock; every event is compared whole,
only ids are replaced by the order in which they first appear. BILLING_FORECASTS sets how many customers, by default
few and always the same; a longer run looks for new ones. BILLING_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from billing.v1.event_model_pb2 import Event
from billing_client import BillingClient
from tests.scenarios.random_lives import Life, live
from tests.scenarios.world import World

ROUNDS = {"at once": 0, "half a month later": 15, "two months later": 62}
"""After how many days of their lives the forecasts are made; each round has settings of its own."""

COUNT = int(os.environ.get("BILLING_FORECASTS", "60")) // len(ROUNDS)
SEED = int(os.environ.get("BILLING_SEED", "0")) or (
    random.randrange(1, 10**9) if "BILLING_FORECASTS" in os.environ else 1
)
DAYS = 150
DAY = 86_400
ID = re.compile(r"\b(in|il|ii|pi|si|cbtxn|sub|sub_sched|upcoming_sub|bautorun)_[0-9a-z]+\b")

UNFORESEEN = frozenset({"clientSecret", "id", "message"})
"""What no forecast can know: secrets, ids, and the words in which a gateway declines."""


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


@pytest.mark.parametrize("round_", ROUNDS)
async def test_a_clock_does_what_the_forecast_told(client: BillingClient, round_: str) -> None:
    chance = random.Random(f"{SEED} {round_}")
    world, lives = await live(client, "2025-01-31T09:30", COUNT, chance, ROUNDS[round_])
    until = world.now + DAYS * DAY
    head = (await client.event_log.ListEvents(_newest())).events[0].position
    told = {life.subscription: (life, await _told(world, life, until)) for life in lives}
    assert (await client.event_log.ListEvents(_newest())).events[0].position == head, "a forecast wrote something"
    await world.advance(until)
    happened: dict[str, list[Event]] = defaultdict(list)
    async for event in client.events(after_position=head, stop_when_caught_up=True):
        happened[event.customer].append(event)
    compared = 0
    for life, foretold in told.values():
        concerning = _concerning(life.subscription, happened[life.customer])
        events, lived = _known(foretold), _known(concerning)
        what = f"seed {SEED}, {life}"
        for index, (foreseen, seen) in enumerate(zip(events, lived, strict=False)):
            assert foreseen == seen, f"{what}, event {index}: {_difference(foreseen, seen)}"
        assert len(events) == len(lived), f"{what}: {len(events)} told, {len(lived)} happened"
        compared += len(events)
    assert compared > 3 * COUNT


async def _told(world: World, life: Life, until: int) -> list[Event]:
    answer = await world.call(
        "subscriptions", "ForecastSubscription", id=life.subscription, until=until, **life.payments
    )
    return list(answer.events)


def _concerning(subscription: str, events: list[Event]) -> list[Event]:
    """The events that name the subscription or one of its invoices, and those about the customer."""
    known = {subscription}
    for event in events:
        if event.HasField("invoice") and event.invoice.subscription == subscription:
            known.add(event.invoice.id)
    return [
        event
        for event in events
        if event.HasField("customer_object") or not known.isdisjoint(_words(MessageToDict(event)))
    ]


def _words(value: Any) -> set[str]:
    """All texts within a value."""
    if isinstance(value, dict):
        return set().union(*map(_words, value.values()))
    if isinstance(value, list):
        return set().union(*map(_words, value))
    return {value} if isinstance(value, str) else set()


def _newest() -> Any:
    from billing.v1.event_service_pb2 import ListEventsRequest

    return ListEventsRequest(page_size=1)
