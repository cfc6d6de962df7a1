"""How processes share the work in the database, and what the database refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_server.delivery.fan_out import choose
from billing_server.store.errors import StoreCorrupted, StoreError
from billing_server.store.store import Store
from billing_server.store.webhook import EventHeading, Health, Recipient, WebhookTried
from tests.store import samples
from tests.store.samples import NOW

LEASE = 60


def window(*types: str) -> list[EventHeading]:
    """Events from position 11 on; those whose types begin with a dash are quiet."""
    return [
        EventHeading(position, name.removeprefix("-"), name.startswith("-"))
        for position, name in enumerate(types, start=11)
    ]


@pytest.mark.parametrize(
    ("filters", "room", "types", "chosen", "reached"),
    [
        ((), 9, [], [], 10),
        ((), 9, ["a.b", "a.c"], [11, 12], 12),
        (("a.*",), 9, ["b.a", "a.b", "ab.c", "a.c", "b.b"], [12, 14], 15),
        ((), 9, ["-a.b", "a.c", "-a.d"], [12], 13),
        ((), 2, ["a.b", "a.c", "a.d"], [11, 12], 12),
        (("a.*",), 1, ["b.b", "a.c", "b.d", "-a.d", "a.e", "a.f"], [12], 14),
        (("a.*",), 1, ["b.b", "a.c", "b.d"], [12], 13),
    ],
)
def test_who_gets_what_and_how_far_that_decides(
    filters: tuple[str, ...], room: int, types: list[str], chosen: list[int], reached: int
) -> None:
    recipient = Recipient("we_1", 10, 0, filters, 0)
    found, position = choose(recipient, window(*types), room)
    assert [event.position for event in found] == chosen
    assert position == reached


async def test_many_claimers_share_the_deliveries(store: Store, account_id: str) -> None:
    endpoint = samples.webhook_endpoint()
    other = samples.webhook_endpoint()
    deliveries = [samples.webhook_delivery(endpoint, number) for number in range(1, 41)]
    async with store.webhooks(account_id) as unit:
        await unit.add([*deliveries, samples.webhook_delivery(other, 1)], {})

    async def claim(limit: int, now: int = NOW) -> list[str]:
        async with store.webhooks(account_id) as unit:
            return [delivery.id for delivery in await unit.claim(endpoint.id, limit, now, LEASE)]

    assert await claim(5, NOW - 1) == [], "not before they are due"
    parts = await asyncio.gather(*(claim(5) for _ in range(8)))
    claimed = [identity for part in parts for identity in part]
    assert len(claimed) == len(set(claimed)), "none twice"
    assert all(len(part) <= 5 for part in parts), "not one more than asked for"
    claimed += await claim(40)
    assert sorted(claimed) == sorted(delivery.id for delivery in deliveries), "all, and only of this endpoint"
    assert await claim(40, NOW + LEASE - 1) == []
    assert len(await claim(40, NOW + LEASE)) == 40


async def test_settling(store: Store, account_id: str) -> None:
    endpoint = samples.webhook_endpoint()
    async with store.webhooks(account_id) as unit:
        await unit.add([samples.webhook_delivery(endpoint, number) for number in (1, 2, 3)], {})
        one, two, three = await unit.claim(endpoint.id, 3, NOW, LEASE)
        tried = [
            WebhookTried(id=one.id, attempts=1, response_status=200),
            WebhookTried(id=two.id, attempts=1, error="gone wrong"),
            WebhookTried(id=three.id, attempts=1, response_status=500, error="later", wait=30),
        ]
        assert await unit.settle(tried, NOW + 1) == 3
        assert await unit.settle(tried[:2], NOW + 1) == 0, "settled once"
        found = [await unit.delivery(delivery.id) for delivery in (one, two, three)]
    assert [(d.state, d.due_at, d.settled_at, d.error, d.response_status) for d in found if d is not None] == [
        ("delivered", None, NOW + 1, None, 200),
        ("failed", None, NOW + 1, "gone wrong", None),
        ("pending", NOW + 31, None, "later", 500),
    ]


async def test_a_sick_endpoint_is_sounded_out_by_one(store: Store, account_id: str) -> None:
    endpoint = samples.webhook_endpoint()
    async with store.webhooks(account_id) as unit:
        await unit.begin(endpoint.id)
        await unit.set_health(endpoint.id, Health(5, NOW))

    async def sound_out(now: int) -> bool:
        async with store.webhooks(account_id) as unit:
            return await unit.sound_out(endpoint.id, now, LEASE)

    assert not await sound_out(NOW - 1)
    assert sorted(await asyncio.gather(*(sound_out(NOW) for _ in range(6)))) == [False] * 5 + [True]
    assert await sound_out(NOW + LEASE), "whoever did is never heard of again"


@pytest.mark.parametrize(
    "wrong",
    [{"state": "delivered"}, {"due_at": None}, {"settled_at": NOW}, {"attempts": -1}, {"state": "lost"}],
)
async def test_deliveries_that_cannot_be(store: Store, account_id: str, wrong: dict[str, Any]) -> None:
    delivery = samples.webhook_delivery(samples.webhook_endpoint(), **wrong)
    with pytest.raises(StoreCorrupted):
        async with store.webhooks(account_id) as unit:
            await unit.add([delivery], {})


@pytest.mark.parametrize("wrong", [{"status": "disabled"}, {"disabled_at": NOW}, {"disabled_reason": "gone"}])
async def test_endpoints_that_cannot_be(store: Store, account_id: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(StoreCorrupted):
        async with store.webhooks(account_id) as unit:
            await unit.insert_endpoint(samples.webhook_endpoint(**wrong))


async def test_a_delivery_is_made_once_even_if_a_cursor_went_back(store: Store, account_id: str) -> None:
    delivery = samples.webhook_delivery(samples.webhook_endpoint())
    async with store.webhooks(account_id) as unit:
        await unit.add([delivery], {})
    with pytest.raises(StoreError):
        async with store.webhooks(account_id) as unit:
            await unit.add([delivery], {})
