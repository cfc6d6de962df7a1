"""Each event reaches each endpoint that wants it, at least once, whatever the endpoint says (promise 21)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from google.protobuf.json_format import MessageToJson, Parse

from billing.v1.event_model_pb2 import CauseKind
from billing.v1.event_model_pb2 import Event as EventMessage
from billing_server.delivery.fan_out import PENDING_OF_SICK_MAX
from billing_server.delivery.webhooks import AT_ONCE_MAX, KEPT_SECONDS, LEASE_SECONDS
from billing_server.domain import commands as c
from billing_server.domain.errors import ResourceMissing, WrongState
from billing_server.domain.webhook import WebhookEndpoint, delivery_id
from billing_server.domain.webhook_retries import GIVE_UP_SECONDS, RETRY_SECONDS, SICK_FAILURES, SICK_SECONDS
from billing_server.store.errors import StoreUnavailable
from billing_server.store.webhook import WebhookTried, WebhookUnit
from billing_server.wire.codec import with_position
from tests.webhooks.conftest import Make, Process, Time
from tests.webhooks.shop import Shop

NewShop = Callable[[], Awaitable[Shop]]
SECONDS_MAX = 60.0
"""Nothing in these tests takes longer, unless it hangs."""


async def outcome(process: Process, **wanted: Any) -> list[tuple[str, int, int | None]]:
    """State, tries and last answer of the deliveries."""
    return [(one.state, one.attempts, one.response_status) for one in await process.deliveries(**wanted)]


async def stored(process: Process, position: int) -> EventMessage:
    """An event as readers of the log see it."""
    async with process.store.view(process.account_id) as view:
        found = await view.event(position)
    assert found is not None
    return EventMessage.FromString(with_position(found.payload, process.account_id, position))


async def current(process: Process, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    async with process.store.view(process.account_id) as view:
        return await view.get(WebhookEndpoint, endpoint.id, "webhook_endpoint")


# --- what is sent


async def test_an_event_arrives_as_readers_of_the_log_see_it(process: Process, shop: Shop) -> None:
    endpoint = await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")
    await process.work()

    (body,) = shop.bodies
    event = await stored(process, 2)
    assert body.decode() == MessageToJson(event, indent=None)
    assert Parse(body, EventMessage()) == event
    assert (event.type, event.object_id) == ("product.created", event.product.id)
    (delivery,) = await process.deliveries()
    assert delivery.id == delivery_id(endpoint.id, 2) == shop.headers[0]["webhook-id"]
    assert shop.headers[0]["webhook-timestamp"] == str(process.clock.now)
    assert (delivery.event, delivery.event_type) == (event.id, "product.created")
    assert (delivery.state, delivery.attempts, delivery.response_status) == ("delivered", 1, 200)
    assert (delivery.tried_at, delivery.settled_at, delivery.due_at) == (process.clock.now, process.clock.now, None)
    await process.work()
    assert shop.tried.total() == 1
    assert process.dispatcher.outcomes == {"delivered": 1}


async def test_an_endpoint_begins_with_what_follows_its_creation(process: Process, shop: Shop) -> None:
    await process.tell("product.created", "product.updated")
    await process.endpoint(shop.url, shop=shop)
    await process.work()
    assert shop.events == [], "neither what was before, nor its own creation"
    await process.tell("price.created")
    await process.work()
    assert [event["type"] for event in shop.events] == ["price.created"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), {"invoice.paid", "invoice.created", "customer.created", "invoiceitem.created"}),
        (("*",), {"invoice.paid", "invoice.created", "customer.created", "invoiceitem.created"}),
        (("invoice.paid",), {"invoice.paid"}),
        (("invoice.*",), {"invoice.paid", "invoice.created"}),
        (("customer.created", "invoice.paid"), {"invoice.paid", "customer.created"}),
        (("payment_intent.*",), set()),
    ],
)
async def test_filters(process: Process, shop: Shop, filters: tuple[str, ...], expected: set[str]) -> None:
    await process.endpoint(shop.url, *filters, shop=shop)
    await process.tell("invoice.created", "invoice.paid", "customer.created", "invoiceitem.created")
    await process.work()
    assert {event["type"] for event in shop.events} == expected


async def test_quiet_events_are_for_the_log_alone(process: Process, shop: Shop) -> None:
    await process.endpoint(shop.url, shop=shop)
    await process.tell("invoice.created", "invoice.voided", quiet=True)
    await process.tell("invoice.paid")
    await process.work()
    assert [event["type"] for event in shop.events] == ["invoice.paid"]
    assert (await stored(process, 2)).type == "invoice.created"


async def test_changes_of_endpoints_are_events_without_their_secrets(process: Process, shop: Shop) -> None:
    other = await process.endpoint(shop.url, "none.such")
    await process.endpoint(shop.url, "webhook_endpoint.*", shop=shop)
    await process.execute(c.UpdateWebhookEndpoint(id=other.id, description="the shop"))
    await process.execute(c.RotateWebhookSecret(id=other.id))
    await process.execute(c.DeleteWebhookEndpoint(id=other.id))
    await process.work()
    assert sorted(event["type"] for event in shop.events) == ["webhook_endpoint.deleted", "webhook_endpoint.updated"]
    assert all(event["objectId"] == event["webhookEndpoint"]["id"] == other.id for event in shop.events)
    assert "whsec" not in json.dumps(shop.events)
    assert not any("secret" in key for event in shop.events for key in event["webhookEndpoint"])


# --- answers


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([204], ("delivered", 1, 204)),
        ([299], ("delivered", 1, 299)),
        ([500, 200], ("delivered", 2, 200)),
        ([400, 404, 429, 200], ("delivered", 4, 200)),
        ([302, 302], ("pending", 2, 302)),
        ([503, 500], ("pending", 2, 500)),
    ],
)
async def test_answers(make: Make, clock: Time, shop: Shop, answers: list[int], expected: tuple[str, int, int]) -> None:
    process = make(retry_seconds=(0,))
    await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")
    remaining = list(answers)
    shop.choose = lambda event: remaining.pop(0)
    for _ in answers:
        await process.work()
    assert await outcome(process) == [expected]
    (delivery,) = await process.deliveries()
    assert bool(delivery.error) == (expected[0] == "pending")
    assert shop.tried[delivery.id] == len(answers), "the same id in every try"


async def test_redirects_are_not_followed(make: Make, new_shop: NewShop) -> None:
    process, shop, other = make(), await new_shop(), await new_shop()
    await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: web.Response(status=307, headers={"location": other.url})
    await process.tell("product.created")
    await process.work()
    (delivery,) = await process.deliveries()
    assert (delivery.response_status, delivery.error) == (307, "the answer was 307 (redirects are not followed)")
    assert other.tried.total() == 0


async def test_a_life_of_three_days(process: Process, shop: Shop, clock: Time) -> None:
    """Tried at the moments of the backoff and not before, then given up."""
    await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: 500
    # Receivers judge the time of signatures by the real one; here days pass.
    shop.verify = lambda body, headers: None  # type: ignore[method-assign]
    await process.tell("product.created")
    began, tries = clock.now, []
    while True:
        await process.work()
        (delivery,) = await process.deliveries()
        tries.append(clock.now - began)
        assert delivery.attempts == len(tries)
        if delivery.due_at is None:
            break
        clock.now = delivery.due_at - 1
        await process.work()
        assert (await process.deliveries())[0].attempts == len(tries), "not before its time"
        clock.now = delivery.due_at
        # The endpoint may be sick, and is sounded out a little later then.
        async with process.store.webhooks(process.account_id) as unit:
            health = await unit.health(delivery.endpoint)
        assert health is not None
        clock.now = max(clock.now, health.retry_at or 0)
    assert tries[:4] == [0, 5, 35, 155]
    assert tries[-1] >= GIVE_UP_SECONDS > tries[-2]
    assert (delivery.state, delivery.error, delivery.response_status) == ("failed", "the answer was 500", 500)
    assert process.dispatcher.outcomes == {"retried": len(tries) - 1, "failed": 1}


async def test_a_receiver_may_ask_for_more_time(process: Process, shop: Shop, clock: Time) -> None:
    await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: web.Response(status=429, headers={"retry-after": "1000"})
    await process.tell("product.created")
    await process.work()
    (delivery,) = await process.deliveries()
    assert delivery.due_at == clock.now + 1000


async def test_gone_disables_the_endpoint(make: Make, shop: Shop, clock: Time) -> None:
    process = make()
    endpoint = await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: 410 if event["type"] == "product.deleted" else 500
    await process.tell(*["product.created"] * 3, "product.deleted")
    await process.work()

    found = await current(process, endpoint)
    assert (found.status, found.disabled_reason, found.version) == ("disabled", "gone", 2)
    assert found.disabled_at is not None
    assert {one.state for one in await process.deliveries()} == {"canceled"}
    told = await stored(process, 6)
    assert (told.type, told.cause.kind) == ("webhook_endpoint.updated", CauseKind.CAUSE_KIND_RECEIVER)
    assert told.previous_attributes["status"] == "WEBHOOK_ENDPOINT_STATUS_ENABLED"
    tried = shop.tried.total()
    await process.tell("product.created")
    clock.now += 10_000
    await process.work()
    assert shop.tried.total() == tried, "nothing is sent any more"
    assert process.dispatcher.outcomes["gone"] == 1

    shop.choose = lambda event: 200
    shop.verify = lambda body, headers: None  # type: ignore[method-assign]  # the clock has been moved far
    await process.execute(c.UpdateWebhookEndpoint(id=endpoint.id, enabled=True))
    await process.tell("price.created")
    await process.work()
    assert [event["type"] for event in shop.events] == ["price.created"], "from the head of then"


# --- one endpoint and the others


async def test_a_dead_endpoint_delays_no_other(make: Make, new_shop: NewShop) -> None:
    dead, well = await new_shop(), await new_shop()
    process = make(seconds_max=600.0)
    for _ in range(5):
        await process.endpoint(dead.url)
    await process.endpoint(well.url, shop=well)
    dead.release.clear()
    await process.tell(*["product.created"] * 50)
    await process.dispatcher.make()
    async with asyncio.timeout(SECONDS_MAX):
        while well.taken.total() < 50 or dead.under_way < 5 * AT_ONCE_MAX:
            await process.dispatcher.look()
            await asyncio.sleep(0.02)
    assert dead.under_way == 5 * AT_ONCE_MAX, "which all still hang"
    dead.choose = lambda event: 500
    dead.release.set()
    await process.dispatcher.idle()


async def test_a_sick_endpoint_is_sounded_out_and_everything_arrives_in_the_end(
    make: Make, shop: Shop, clock: Time
) -> None:
    process, other = make(), make()
    endpoint = await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: 500
    await process.tell(*["product.created"] * AT_ONCE_MAX)
    await process.work()
    assert shop.tried.total() == AT_ONCE_MAX >= SICK_FAILURES
    await process.tell(*["product.created"] * 400)
    await process.work()
    assert shop.tried.total() == AT_ONCE_MAX, "left in peace"
    assert len(await process.deliveries()) == PENDING_OF_SICK_MAX, "the rest waits in the log"
    for number, wait in enumerate(SICK_SECONDS[:4], start=1):
        clock.now += wait - 1
        await process.work()
        assert shop.tried.total() == AT_ONCE_MAX + number - 1, "not before its time"
        clock.now += 1
        await asyncio.gather(process.work(), other.work())
        assert shop.tried.total() == AT_ONCE_MAX + number, "one at a time, for all processes"

    shop.choose = lambda event: 200
    clock.now += SICK_SECONDS[4]
    for _ in range(30):
        clock.now += 5
        process.dispatcher._fan_out._full_until.clear()
        await process.work()
    assert {delivery_id(endpoint.id, position) for position in range(2, 412)} == set(shop.taken)
    assert set(shop.taken.values()) == {1}
    assert {one.state for one in await process.deliveries()} == {"delivered"}


async def test_a_failure_now_and_then_makes_nobody_sick(make: Make, shop: Shop, clock: Time) -> None:
    process = make(retry_seconds=(0,))
    await process.endpoint(shop.url, shop=shop)
    numbers = iter(range(10_000))
    shop.choose = lambda event: 200 if next(numbers) % 3 == 0 else 500
    await process.tell(*["product.created"] * 60)
    for _ in range(40):
        clock.now += 6
        await process.work()
    assert len(shop.taken) == 60
    assert set(shop.taken.values()) == {1}


async def test_one_broken_event_stops_no_other(
    process: Process, shop: Shop, administrator: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await process.endpoint(shop.url, shop=shop)
    await process.tell(*["product.created"] * 3)
    await administrator.execute(
        "UPDATE events SET payload = '\\xff' WHERE account_id = $1 AND position = 3", process.account_id
    )
    with caplog.at_level(logging.CRITICAL):
        await process.work()
    assert [one.state for one in await process.deliveries()] == ["delivered", "pending", "delivered"]
    assert "see its log" in str((await process.deliveries())[1].error)


# --- many processes, and processes that die


async def test_two_processes_decide_about_each_event_once(make: Make, shop: Shop) -> None:
    one, other = make(), make()
    endpoints = [await one.endpoint(shop.url, *filters, shop=None) for filters in ((), ("product.*",), ("price.*",))]
    for _ in range(6):
        await one.tell(*["product.created", "price.created"] * 60)
        await asyncio.gather(*(process.dispatcher.make() for process in (one, other, one, other)))
    found = await one.deliveries()
    wanted = {
        (endpoint.id, position)
        for endpoint, every, from_ in zip(endpoints, (1, 2, 2), (4, 4, 5), strict=True)
        for position in range(from_, 4 + 720, every)
    } | {(endpoints[0].id, 2), (endpoints[0].id, 3)}
    assert {(delivery.endpoint, delivery.position) for delivery in found} == wanted
    assert len(found) == len(wanted)

    async def send(process: Process) -> None:
        for _ in range(40):
            await process.work()

    await asyncio.gather(send(one), send(other))
    assert set(shop.taken) == {delivery.id for delivery in found}
    assert set(shop.taken.values()) == {1}
    assert min(process.dispatcher.outcomes["delivered"] for process in (one, other)) > 0, "they share the work"


class Killed(BaseException):
    """What a process dies of."""


async def test_killed_while_making_deliveries(make: Make, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries and cursor are written together or not at all."""
    process, heir = make(), make()
    await process.endpoint(shop.url, shop=shop)
    await process.tell(*["product.created"] * 3)
    add = WebhookUnit.add

    async def die(self: WebhookUnit, *parameters: Any) -> None:
        await add(self, *parameters)
        raise Killed

    monkeypatch.setattr(WebhookUnit, "add", die)
    with pytest.raises(Killed):
        await process.dispatcher.make()
    monkeypatch.undo()
    assert await process.deliveries() == []
    await heir.work()
    assert set(shop.taken.values()) == {1}
    assert len(shop.taken) == 3


async def test_killed_between_sending_and_settling(make: Make, shop: Shop, clock: Time) -> None:
    process, heir = make(), make()
    await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")

    await process.dispatcher.make()
    claimed = await process.dispatcher._claim(process.account_id, (await process.deliveries())[0].endpoint)
    assert claimed is not None
    await process.dispatcher._try(process.account_id, claimed, claimed.deliveries[0])
    clock.now += LEASE_SECONDS - 1
    await heir.work()
    assert shop.taken.total() == 1, "as long as the lease lasts, it may still be on its way"
    clock.now += 1
    await heir.work()
    assert list(shop.taken.values()) == [2], "again, under the same id"
    assert shop.bodies[0] == shop.bodies[1]
    assert await outcome(process) == [("delivered", 2, 200)]
    late = claimed.deliveries[0]
    async with process.store.webhooks(process.account_id) as unit:
        assert await unit.settle([WebhookTried(id=late.id, attempts=late.attempts, error="late")], clock.now) == 0


# --- sent again, disabled, deleted, forgotten


async def test_redelivery(make: Make, shop: Shop, clock: Time) -> None:
    process = make()
    endpoint = await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")
    await process.work()
    (delivery,) = await process.deliveries()
    clock.now += 60
    again = await process.execute(c.RedeliverWebhookDelivery(id=delivery.id))
    assert (again.state, again.attempts, again.settled_at) == ("pending", 0, None)
    clock.now += 60
    await process.work()
    assert shop.taken == {delivery.id: 2}
    assert shop.bodies[0] == shop.bodies[1]
    assert await outcome(process) == [("delivered", 1, 200)]

    shop.choose = lambda event: 500
    await process.execute(c.RedeliverWebhookDelivery(id=delivery.id))
    clock.now += 60
    await process.work()
    assert await outcome(process) == [("pending", 1, 500)]
    again = await process.execute(c.RedeliverWebhookDelivery(id=delivery.id))
    assert again.attempts == 1, "a try may be under way"
    await process.work()
    assert await outcome(process) == [("pending", 2, 500)], "at once"

    await process.execute(c.UpdateWebhookEndpoint(id=endpoint.id, enabled=False))
    assert await outcome(process) == [("canceled", 2, 500)]
    with pytest.raises(WrongState) as disabled:
        await process.execute(c.RedeliverWebhookDelivery(id=delivery.id))
    assert disabled.value.reason == "webhook_endpoint_disabled"
    with pytest.raises(ResourceMissing):
        await process.execute(c.RedeliverWebhookDelivery(id="wd_unknown"))


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_what_is_pending_is_canceled(process: Process, shop: Shop, clock: Time, how: str) -> None:
    endpoint = await process.endpoint(shop.url, shop=shop)
    shop.choose = lambda event: 500
    await process.tell("product.created", "product.updated")
    await process.work()
    if how == "disabled":
        await process.execute(c.UpdateWebhookEndpoint(id=endpoint.id, enabled=False))
    else:
        await process.execute(c.DeleteWebhookEndpoint(id=endpoint.id))
    assert await outcome(process) == [("canceled", 1, 500)] * 2
    clock.now += 60
    await process.tell("product.created")
    await process.work()
    assert shop.tried.total() == 2
    (first, _) = await process.deliveries()
    with pytest.raises(WrongState):
        await process.execute(c.RedeliverWebhookDelivery(id=first.id))


async def test_an_answer_that_comes_after_the_endpoint_was_disabled_changes_nothing(make: Make, shop: Shop) -> None:
    process = make()
    endpoint = await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")
    shop.release.clear()
    await process.dispatcher.make()
    await process.dispatcher.look()
    await asyncio.wait_for(shop.arrived.wait(), SECONDS_MAX)
    await process.execute(c.UpdateWebhookEndpoint(id=endpoint.id, enabled=False))
    shop.release.set()
    await process.dispatcher.idle()
    assert await outcome(process) == [("canceled", 1, None)]


async def test_another_address_gets_what_is_pending(make: Make, new_shop: NewShop, clock: Time) -> None:
    process, old, new = make(), await new_shop(), await new_shop()
    endpoint = await process.endpoint(old.url, "product.*", shop=old)
    new.secrets = old.secrets
    old.choose = lambda event: 500
    await process.tell("product.created")
    await process.work()
    await process.execute(c.UpdateWebhookEndpoint(id=endpoint.id, url=new.url))
    clock.now += RETRY_SECONDS[0]
    await process.work()
    assert (old.tried.total(), new.taken.total()) == (1, 1)


async def test_settled_deliveries_are_forgotten_after_a_month(process: Process, shop: Shop, clock: Time) -> None:
    await process.endpoint(shop.url, "product.*", shop=shop)
    shop.choose = lambda event: 200 if event["type"] == "product.created" else 500
    await process.tell("product.created", "product.updated")
    await process.work()
    clock.now += KEPT_SECONDS
    await process.dispatcher.forget_old()
    assert len(await process.deliveries()) == 2
    clock.now += 1
    await process.dispatcher.forget_old()
    assert [one.state for one in await process.deliveries()] == ["pending"]


async def test_events_that_are_no_longer_kept(
    process: Process, shop: Shop, administrator: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await process.endpoint(shop.url, shop=shop)
    await process.tell("product.created")
    await process.dispatcher.make()
    await process.tell("product.updated", "product.deleted")
    drop = "DELETE FROM events WHERE account_id = $1 AND position <= $2"
    await administrator.execute(drop, process.account_id, 3)
    await process.work()
    assert [(one.position, one.state, one.error) for one in await process.deliveries()] == [
        (2, "failed", "the event is no longer kept"),
        (4, "delivered", None),
    ]
    assert "events 3 to 3" in caplog.text
    await process.tell("product.created")
    await administrator.execute(drop, process.account_id, 5)
    await process.work()
    await process.tell("price.created")
    await process.work()
    assert [event["type"] for event in shop.events] == ["product.deleted", "price.created"]


# --- by itself


async def test_the_task_sends_by_itself_and_ends(make: Make, shop: Shop) -> None:
    process = make(now=lambda: None)
    await process.endpoint(shop.url, shop=shop)
    process.dispatcher.start()
    await process.tell("product.created")
    async with asyncio.timeout(SECONDS_MAX):
        await shop.arrived.wait()
        await process.tell("product.updated")
        while shop.taken.total() < 2:  # noqa: ASYNC110  # the process's own tasks send it
            await asyncio.sleep(0.01)
    await process.dispatcher.close(SECONDS_MAX)
    assert [state for state, *_ in await outcome(process)] == ["delivered"] * 2
    await process.tell("product.deleted")
    await asyncio.sleep(0.1)
    assert shop.tried.total() == 2


async def test_a_database_that_is_away_ends_nothing(
    make: Make, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = make(now=lambda: None)
    await process.endpoint(shop.url, shop=shop)
    store: Any = process.store

    async def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    for name in ("accounts_with_webhooks", "webhook_endpoints_due"):
        monkeypatch.setattr(store, name, away, raising=False)
    process.dispatcher.start()
    await process.tell("product.created")
    async with asyncio.timeout(SECONDS_MAX):
        while "away" not in caplog.text:  # noqa: ASYNC110  # the process's own tasks meet it
            await asyncio.sleep(0.01)
    monkeypatch.undo()
    async with asyncio.timeout(SECONDS_MAX):
        while not shop.taken:  # noqa: ASYNC110  # the process's own tasks send it
            await asyncio.sleep(0.01)
