"""Crash enumeration of what is told to others: a process is killed at each step of webhooks, consumers and letters.

Steps are: before and after each transaction, before a receiver, a consumer or the post office gets something, and
after it has. At least once, whatever is killed (promises 18 and 21); twice only what was on its way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from email.message import EmailMessage
from typing import Any

import pytest

from billing.v1.event_service_pb2 import ConsumeResponse
from billing_server.delivery import consuming
from billing_server.delivery.consumers import Consumers
from billing_server.delivery.letter import Sender
from billing_server.delivery.mail import Mail
from billing_server.delivery.receivers import Receivers, Reply
from billing_server.delivery.signature import ID_HEADER
from billing_server.delivery.tail import Tails
from billing_server.delivery.webhooks import Claimed, Outcome, WebhookDispatcher
from billing_server.domain import commands as c
from billing_server.domain.consumer import Consumer, Opening, Step
from billing_server.domain.message import Message
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint, delivery_id
from billing_server.engine.engine import Engine
from billing_server.engine.webhooks import NewSecret
from billing_server.store.message import Tried
from billing_server.store.webhook import WebhookTried
from tests.engine.crashes import LEASE_SECONDS, Scenario, killed_at_every_step
from tests.engine.times import Stops, TimedStore
from tests.engine.world import World, caller

CONSUMER = "crm"


# --- webhooks


class Shops(Receivers):
    """Receivers that take everything. `taken` counts by `webhook-id`; it outlives the processes."""

    def __init__(self, stops: Stops, taken: Counter[str]) -> None:
        super().__init__()
        self._stops = stops
        self._taken = taken

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        await self._stops.at("a receiver is asked")
        self._taken[headers[ID_HEADER]] += 1
        await self._stops.at("a receiver has answered")
        return Reply(200)


class Endpoint:
    """An endpoint, and what its receiver has got."""

    def __init__(self, endpoint: WebhookEndpoint) -> None:
        self.id = endpoint.id
        self.taken: Counter[str] = Counter()


async def _something_to_tell(world: World, engine: Engine) -> Endpoint:
    """An endpoint, and some events after its creation."""
    command = c.CreateWebhookEndpoint(url="https://shop.example.com/hooks", event_types=("customer.*", "product.*"))
    made = (await world.ask(engine, command)).result
    assert isinstance(made, NewSecret)
    await world.customer(engine)
    await world.ask(engine, c.CreateProduct(name="told"))
    return Endpoint(made.endpoint)


async def _tell(world: World, engine: Engine, endpoint: Endpoint) -> None:
    """What a process does for webhooks when it looks for them, after all leases are over."""
    world.time.pass_(LEASE_SECONDS)
    store = world.store_of(engine)
    receivers = Shops(store.stops, endpoint.taken)
    dispatcher = WebhookDispatcher(store, engine.bell, engine.webhooks, receivers, now=lambda: world.time.now)
    await dispatcher.make()
    await dispatcher.look()
    await dispatcher.idle()
    await dispatcher.close(0)


async def _told(world: World, engine: Engine, endpoint: Endpoint) -> None:
    events = await world.events(engine)
    created_at = next(event.position for event in events if event.object_id == endpoint.id)
    wanted = {
        delivery_id(endpoint.id, event.position)
        for event in events
        if event.position > created_at and event.type.startswith(("customer.", "product."))
    }
    assert len(wanted) >= 3
    assert endpoint.taken.keys() == wanted
    assert max(endpoint.taken.values()) <= 2, "only what was on its way is sent again"


# --- durable consumers


@pytest.fixture(autouse=True)
def _store_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledgements do not gather, so that each has a step at which it is stored."""
    monkeypatch.setattr(consuming, "STORE_SECONDS", 0.0)


class Position:
    """What a consumer was given and what it has done; it outlives its connections."""

    def __init__(self) -> None:
        self.given: Counter[int] = Counter()
        self.done: set[int] = set()


async def _something_to_consume(world: World, engine: Engine) -> Position:
    consumer = Consumer(id=CONSUMER, created=world.time.now)
    await engine.consumers.create(world.account_id, consumer, "beginning", 0, caller(c.CreateProduct(name="crm")))
    for _ in range(3):
        await world.customer(engine, None)
    return Position()


async def _consume(world: World, engine: Engine, position: Position) -> None:
    """A connection that takes all there is and says of each batch that it is done."""
    # Whoever was killed does not renew its lease any more.
    await world.sql("UPDATE consumer_connections SET lease_until = '-infinity' WHERE account_id = $1", world.account_id)
    store = world.store_of(engine)
    said: asyncio.Queue[Step | None] = asyncio.Queue()

    async def steps() -> AsyncIterator[Step]:
        while (step := await said.get()) is not None:
            yield step

    consumer = Consumer(id=CONSUMER, created=world.time.now)
    opening = Opening(consumer=CONSUMER, batch_max=2, heartbeat_seconds=1)
    consumers = Consumers(store, engine.bell, Tails(store))
    async for message in consumers.consume(world.account_id, opening, consumer, steps()):
        response = ConsumeResponse.FromString(message)
        positions = [event.position for event in response.events]
        position.given.update(positions)
        await store.stops.at("a consumer was given something")
        if positions:
            position.done.update(positions)
            said.put_nowait(Step(acknowledged=positions))
            await _stored(store)
        if response.caught_up:
            said.put_nowait(None)


async def _stored(store: TimedStore) -> None:
    """Give the keeper time to store what was said, if it was not before."""
    for _ in range(50):
        if store.stops.passed[-1] == "after storing a share":
            return
        await asyncio.sleep(0.01)


async def _consumed(world: World, engine: Engine, position: Position) -> None:
    log = {event.position for event in await world.events(engine)}
    assert position.done == log
    assert position.given.keys() == log
    async with engine.store.view(world.account_id) as view:
        progress = (await view.consumer_progress([CONSUMER]))[CONSUMER]
    assert (progress.floor, progress.pending) == (max(log), 0)


# --- letters


class Postbox:
    """An outbox that takes everything. `taken` counts by message; it outlives the processes."""

    def __init__(self, stops: Stops, taken: Counter[str]) -> None:
        self._stops = stops
        self._taken = taken

    async def send(self, letter: EmailMessage, name: str) -> None:
        await self._stops.at("the post office is asked")
        self._taken[name] += 1
        await self._stops.at("the post office has answered")

    async def close(self) -> None:
        """Nothing is kept open."""


async def _something_to_write(world: World, engine: Engine) -> Counter[str]:
    """Two receipts."""
    customer = await world.customer(engine)
    await world.ask(engine, c.UpdateCustomer(id=customer, email="ada@home.example"))
    for _ in range(2):
        await world.subscribe(engine, customer)
    return Counter()


async def _write(world: World, engine: Engine, taken: Counter[str]) -> None:
    # Letters are due by the database's clock, which is far behind the one that is moved by hand; all leases are over.
    due = "UPDATE messages SET due_at = 1 WHERE account_id = $1 AND due_at IS NOT NULL"
    await world.sql(due, world.account_id)
    store = world.store_of(engine)
    outbox = Postbox(store.stops, taken)
    await Mail(store, outbox, Sender("billing@shop.example", None), sandbox=outbox).deliver()


async def _written(world: World, engine: Engine, taken: Counter[str]) -> None:
    messages = await world.messages(engine)
    assert [(message.kind, message.state) for message in messages] == [("receipt", "sent")] * 2
    assert taken.keys() == {message.id for message in messages}
    assert max(taken.values()) <= 2


SCENARIOS = {
    "webhooks": Scenario(_something_to_tell, _tell, _told),
    "a consumer": Scenario(_something_to_consume, _consume, _consumed),
    "letters": Scenario(_something_to_write, _write, _written),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_process_killed_at_any_step_loses_nothing(new_world: Callable[[], World], name: str) -> None:
    await killed_at_every_step(new_world, SCENARIOS[name])


# --- the calibration: the same enumerations with planted bugs


def _settle_webhooks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = WebhookDispatcher._try

    async def hasty(self: WebhookDispatcher, account_id: str, claimed: Claimed, delivery: WebhookDelivery) -> Outcome:
        async with self._store.webhooks(account_id) as unit:
            await unit.settle([WebhookTried(id=delivery.id, attempts=delivery.attempts)], claimed.now)
        return await attempt(self, account_id, claimed, delivery)

    monkeypatch.setattr(WebhookDispatcher, "_try", hasty)


def _move_on_first(monkeypatch: pytest.MonkeyPatch) -> None:
    take = consuming.Connection._next

    async def hasty(self: consuming.Connection, *room: Any) -> Any:
        events, tries, read_on = await take(self, *room)
        self.hand.acknowledge([event.position for event in events])
        await self._save()
        return events, tries, read_on

    monkeypatch.setattr(consuming.Connection, "_next", hasty)


def _settle_letters_first(monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Mail._deliver

    async def hasty(self: Mail, account_id: str, claimed: Sequence[Message]) -> bool:
        tried = [Tried(id=message.id, attempts=message.attempts) for message in claimed]
        await self._store.settle_messages(account_id, tried)
        return await deliver(self, account_id, claimed)

    monkeypatch.setattr(Mail, "_deliver", hasty)


PLANTS = {"webhooks": _settle_webhooks_first, "a consumer": _move_on_first, "letters": _settle_letters_first}


@pytest.mark.parametrize("name", PLANTS)
async def test_settling_too_soon_would_be_noticed(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    PLANTS[name](monkeypatch)
    with pytest.raises(AssertionError, match="killed at step"):
        await killed_at_every_step(new_world, SCENARIOS[name])
