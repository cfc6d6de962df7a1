"""Random lives on one test clock: customers whose subscriptions begin, change and fail in all ways.

A life is made of requests that may be refused as a matter of course; what they come to is for a test to look at. The
same chance always makes the same lives.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple

from billing_client import BillingClient, InvalidArgument, WrongState
from tests.scenarios.world import World

AT_ONCE = 32
DAY = 86_400

CARDS = {
    "pm_card_visa": {"payments": "succeed"},
    "pm_card_chargeCustomerFail": {"payments": "fail"},
    "pm_card_visa_chargeDeclined": {"payments": "fail"},
}
"""Cards, and how a forecast has to assume that their charges turn out."""

WITHOUT_CARD = {"payments": "fail"}


class Life(NamedTuple):
    """A subscription, and how the payments of its customer turn out."""

    customer: str
    subscription: str
    payments: dict[str, str]


class Shop(NamedTuple):
    """What is sold: recurring prices of one interval together, metered ones among them, and a one-off price."""

    monthly: list[str]
    weekly: list[str]
    quarterly: list[str]
    metered: frozenset[str]
    setup: str


async def open_shop(world: World) -> Shop:
    """Put prices of all kinds into the catalog."""
    calls, seats = await world.meter("calls"), await world.meter("seats", "last")
    metered = [
        await world.metered(calls, 3),
        await world.metered(seats, 500),
        await world.metered(calls, 2, "week"),
    ]
    return Shop(
        monthly=[await world.price(3100), await world.price(0), await world.price(1000), *metered[:2]],
        weekly=[await world.price(999, "week"), metered[2]],
        quarterly=[await world.price(12_000, recurring={"interval_count": 3})],
        metered=frozenset(metered),
        setup=await world.one_time(2000),
    )


async def random_settings(world: World, chance: random.Random) -> None:
    """Retries, final actions, overdue policy and notices of some kind."""
    custom = {"kind": "custom", "retry_days": chance.choice([[3, 5, 7], [1], [], [7, 7]])}
    smart = {
        "kind": "smart",
        "max_retries": chance.choice([1, 4, 8]),
        "window": chance.choice(["one_week", "two_weeks", "one_month", "two_months"]),
    }
    await world.settings(
        retry_policy=chance.choice([custom, smart]),
        subscription_final_action=chance.choice(["cancel", "unpaid", "past_due"]),
        invoice_final_action=chance.choice(["leave_open", "uncollectible", "void"]),
        overdue_policy={
            "days_after_due": chance.choice([1, 20, 60]),
            "subscription_action": chance.choice(["cancel", "unpaid", "past_due"]),
            "invoice_action": chance.choice(["leave_open", "uncollectible", "void"]),
        },
        upcoming_renewal_days=chance.choice([0, 3, 7, 30]),
        finalization_delay_seconds=chance.choice([3600, 3600, 0, 7200]),
    )


async def live(
    client: BillingClient, start: str, count: int, chance: random.Random, days: int
) -> tuple[World, list[Life]]:
    """Begin so many lives, let days pass, and change some of them."""
    world = await World.begin(client, start)
    await random_settings(world, chance)
    shop = await open_shop(world)
    groups = await _for_each(range(count), chance, lambda _, own: _begin(world, own, shop))
    if days:
        await world.advance(world.now + days * DAY)
    groups = await _for_each(groups, chance, lambda lives, own: _go_on(world, own, shop, lives))
    return world, [life for lives in groups for life in lives]


async def _for_each(things: Any, chance: random.Random, make: Any) -> list[list[Life]]:
    """Do something for each, many at once, each with a chance of its own."""
    own = [(thing, random.Random(chance.random())) for thing in things]
    made: list[list[Life]] = []
    for begun in range(0, len(own), AT_ONCE):
        made += await asyncio.gather(*(make(thing, luck) for thing, luck in own[begun : begun + AT_ONCE]))
    return made


# --- beginning


async def _begin(world: World, chance: random.Random, shop: Shop) -> list[Life]:
    """A customer with one subscription, or some."""
    card = chance.choice([*CARDS, None])
    customer = await world.customer(card)
    payments = WITHOUT_CARD if card is None else CARDS[card]
    if chance.random() < 0.25:
        await _maybe(_adjust(world, chance, customer))
    lives = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        make = _schedule if chance.random() < 0.3 else _subscribe
        subscription = await make(world, chance, shop, customer)
        if subscription:
            lives.append(Life(customer, subscription, payments))
    return lives


async def _subscribe(world: World, chance: random.Random, shop: Shop, customer: str) -> str:
    return str((await world.subscribe(customer, items=_items(chance, shop), **_beginning(chance, shop, world.now))).id)


async def _schedule(world: World, chance: random.Random, shop: Shop, customer: str) -> str:
    made = await world.call(
        "schedules",
        "CreateSubscriptionSchedule",
        customer=customer,
        phases=_phases(chance, shop),
        end_behavior=chance.choice(["release", "cancel"]),
    )
    return str(made.subscription)


def _items(chance: random.Random, shop: Shop) -> list[dict[str, Any]]:
    prices = chance.choice([shop.monthly, shop.monthly, shop.weekly, shop.quarterly])
    chosen = chance.sample(prices, min(len(prices), chance.choice([1, 1, 2])))
    return [{"price": price} | _quantity(chance, shop, price) for price in chosen]


def _quantity(chance: random.Random, shop: Shop, price: str) -> dict[str, int]:
    return {} if price in shop.metered else {"quantity": chance.choice([0, 1, 1, 3])}


def _beginning(chance: random.Random, shop: Shop, start: int) -> dict[str, Any]:
    """How a subscription begins, is collected and may end."""
    fields: dict[str, Any] = {"billing_mode": chance.choice(["classic", "flexible"])}
    if chance.random() < 0.25:
        fields |= {"collection_method": "send_invoice", "days_until_due": chance.choice([0, 7, 30, 45])}
    elif chance.random() < 0.15:
        fields["payment_behavior"] = "default_incomplete"
    if chance.random() < 0.4:
        fields["trial_period_days"] = chance.choice([1, 3, 7, 14, 30, 60])
        if "collection_method" not in fields:
            fields["missing_payment_method"] = chance.choice(["create_invoice", "cancel", "pause"])
    elif chance.random() < 0.15:
        fields["backdate_start_date"] = start - chance.randrange(1, 90 * DAY)
    if chance.random() < 0.3:
        after = start + fields.get("trial_period_days", 0) * DAY
        fields["billing_cycle_anchor"] = after + chance.randrange(1, 6 * DAY)
        fields["proration_behavior"] = chance.choice(["create_prorations", "none"])
    if chance.random() < 0.2:
        fields["cancel_at"] = start + chance.randrange(DAY, 150 * DAY)
    elif chance.random() < 0.1:
        fields["cancel_at_period_end"] = True
    if chance.random() < 0.2:
        fields["add_invoice_items"] = [{"price": shop.setup}]
    if chance.random() < 0.2:
        every = {"interval": chance.choice(["day", "week", "month"]), "interval_count": chance.choice([1, 2, 5])}
        fields["pending_invoice_item_interval"] = every
    return fields


def _phases(chance: random.Random, shop: Shop) -> list[dict[str, Any]]:
    """Random phases: prices, lengths, trials, anchors, fees, ways to collect and to prorate."""
    phases = []
    for _ in range(chance.randrange(1, 4)):
        phase: dict[str, Any] = {
            "items": _items(chance, shop),
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
        if chance.random() < 0.2:
            phase["add_invoice_items"] = [{"price": shop.setup}]
        if chance.random() < 0.3:
            phase |= {"collection_method": "send_invoice", "days_until_due": chance.choice([0, 10, 30])}
        phases.append(phase)
    return phases


# --- going on


async def _go_on(world: World, chance: random.Random, shop: Shop, lives: list[Life]) -> list[Life]:
    """Change some of the subscriptions of one customer, and perhaps the customer's card."""
    for life in lives:
        for change in (_use, _change, _pause, _resume, _add_item, _take_over):
            if chance.random() < 0.3:
                await _maybe(change(world, chance, shop, life))
    if lives and chance.random() < 0.2:
        card = chance.choice(list(CARDS))
        await world.card(lives[0].customer, card)
        lives = [life._replace(payments=CARDS[card]) for life in lives]
    return lives


async def _maybe(request: Any) -> None:
    """Ask for something that may not be possible, as in a status that does not allow it."""
    try:
        await request
    except (InvalidArgument, WrongState):
        return


async def _adjust(world: World, chance: random.Random, customer: str) -> None:
    amount = chance.choice([-100, -5000, -90_000, 40, 700])
    await world.call("customers", "AdjustBalance", customer=customer, amount=amount, currency="usd")


async def _use(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    """Usage, now or late."""
    ago = chance.choice([0, 0, DAY, 20 * DAY])
    await world.use(life.customer, chance.randrange(1, 1000), world.now - ago)
    await world.use(life.customer, chance.randrange(1, 30), event_name="seats")


async def _change(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    """Other items, a trial, an anchor, an end, or another way to collect."""
    proration = chance.choice(["create_prorations", "always_invoice", "none"])
    found = await world.subscription(life.subscription)
    kind = chance.randrange(7)
    fields: dict[str, Any] = {}
    if kind <= 1:
        item = found.items[0]
        price = chance.choice([item.price, *shop.monthly])
        fields["items"] = [{"id": item.id, "price": price} | _quantity(chance, shop, price)]
    elif kind == 2:
        fields["trial_end"] = world.now + chance.randrange(1, 40 * DAY)
    elif kind == 3:
        fields["cancel_at"] = world.now + chance.randrange(1, 100 * DAY)
    elif kind == 4:
        fields["cancel_at_period_end"] = True
    elif kind == 5:
        fields |= {"collection_method": "send_invoice", "days_until_due": chance.choice([1, 20])}
    else:
        fields["billing_cycle_anchor_now"] = True
    await world.update(life.subscription, proration_behavior=proration, **fields)


async def _pause(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    """Collection is paused, for a while or until somebody says so."""
    pause: dict[str, Any] = {"behavior": chance.choice(["void", "keep_as_draft", "mark_uncollectible"])}
    if chance.random() < 0.5:
        pause["resumes_at"] = world.now + chance.randrange(DAY, 90 * DAY)
    await world.update(life.subscription, pause_collection=pause)


async def _resume(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    await world.call(
        "subscriptions",
        "ResumeSubscription",
        id=life.subscription,
        billing_cycle_anchor=chance.choice(["now", "unchanged"]),
        proration_behavior=chance.choice(["create_prorations", "always_invoice", "none"]),
    )


async def _add_item(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    """An item that waits for an invoice: of the subscription, or of the customer."""
    bound = {"subscription": life.subscription} if chance.random() < 0.6 else {}
    amount = chance.choice([500, -300, 30])
    await world.call("invoices", "CreateInvoiceItem", customer=life.customer, amount=amount, currency="usd", **bound)


async def _take_over(world: World, chance: random.Random, shop: Shop, life: Life) -> None:
    """Put a schedule over a subscription, and phases behind the current one."""
    made = await world.call("schedules", "CreateSubscriptionSchedule", from_subscription=life.subscription)
    current = made.phases[0]
    kept: dict[str, Any] = {
        "items": [
            {"price": item.price} | ({} if item.price in shop.metered else {"quantity": item.quantity})
            for item in current.items
        ],
        "end_date": current.end_date.seconds,
    }
    if current.HasField("trial_end"):
        kept["trial_end"] = current.trial_end.seconds
    await world.call(
        "schedules",
        "UpdateSubscriptionSchedule",
        id=made.id,
        phases=[kept, *_phases(chance, shop)],
        end_behavior=chance.choice(["release", "cancel"]),
    )
