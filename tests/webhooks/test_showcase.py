"""A thousand webhooks to a receiver that fails three times in ten and is down for a while, by two processes."""

from __future__ import annotations

import asyncio
import os
import random
import time

from billing_server.delivery.webhooks import AT_ONCE_MAX
from billing_server.domain.webhook import delivery_id
from tests.webhooks.conftest import Make
from tests.webhooks.shop import TAKE_AND_DROP, Answer, Shop

EVENTS = 1_000
FAILS = 0.3
DOWN_SECONDS = 1.5


async def test_a_thousand_webhooks_all_arrive(make: Make, shop: Shop) -> None:
    """Backoff is nothing and a sick endpoint waits a second, so that it is over soon; all else is as it always is.

    Each failure is an answer of 500, or an answer that never comes though the event was taken: only the latter make
    duplicates.
    """
    seed = int(os.environ.get("BILLING_TEST_SEED", random.randrange(10**9)))
    chance = random.Random(seed)
    swallowed = 0

    def choose(event: object) -> Answer:
        nonlocal swallowed
        if chance.random() >= FAILS:
            return 200
        if chance.random() < 0.5:
            return 500
        swallowed += 1
        return TAKE_AND_DROP

    shop.choose = choose
    one, other = (make(now=lambda: None, retry_seconds=(0,), sick_seconds=(1,)) for _ in range(2))
    endpoint = await one.endpoint(shop.url, "product.created", shop=shop)
    for process in (one, other):
        await process.engine.bell.start()
        process.dispatcher.start()
    started, processor = time.monotonic(), time.process_time()

    async def tell() -> None:
        for _ in range(EVENTS // 50):
            await one.tell(*["product.created", "product.updated"] * 50)

    async def go_down() -> None:
        while len(shop.taken) < EVENTS // 4:  # noqa: ASYNC110  # the processes' own tasks send
            await asyncio.sleep(0.01)
        await shop.close()
        await asyncio.sleep(DOWN_SECONDS)
        await shop.open()

    async with asyncio.timeout(300):
        await asyncio.gather(tell(), go_down())
        while len(await one.deliveries(state="delivered")) < EVENTS:  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.1)
    seconds, processor = time.monotonic() - started, time.process_time() - processor

    wanted = {delivery_id(endpoint.id, position) for position in range(2, 2 + 2 * EVENTS, 2)}
    assert {one.id for one in await one.deliveries()} == wanted, f"seed {seed}"
    assert set(shop.taken) == wanted, f"seed {seed}: all arrived"
    duplicates = shop.taken.total() - EVENTS
    # What was under way when the receiver went down may have been taken, too.
    interrupted = duplicates - swallowed
    assert 0 <= interrupted <= 2 * AT_ONCE_MAX, f"seed {seed}: no other duplicates"
    assert len({event["id"] for event in shop.events}) == EVENTS
    outcomes = one.dispatcher.outcomes + other.dispatcher.outcomes
    assert outcomes["delivered"] == EVENTS
    assert outcomes["failed"] == 0
    assert min(process.dispatcher.outcomes["delivered"] for process in (one, other)) > 0
    print(
        f"\n{EVENTS} webhooks in {seconds:.1f} s ({processor:.1f} s of processor time, receiver included), down for "
        f"{DOWN_SECONDS} s: {shop.tried.total()} requests, each signature verified; {outcomes['retried']} retries; "
        f"{duplicates} duplicates ({swallowed} answers were lost, {interrupted} broken off as it went down); "
        f"seed {seed}"
    )
