"""A store with an account of its own for each test, processes that send webhooks, and shops that get them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from billing_server.delivery.receivers import Receivers
from billing_server.delivery.webhooks import WebhookDispatcher
from billing_server.domain import commands as c
from billing_server.domain.event import Cause, Event
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint
from billing_server.engine.engine import Engine
from billing_server.engine.events import event_rows
from billing_server.engine.webhooks import NewSecret
from billing_server.engine.work import Caller
from billing_server.gateways.test import BuiltInGateway
from billing_server.store.event import EventRow
from billing_server.store.migrate import migrate
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from billing_server.store.webhook import WebhookDeliveryFilter
from tests.conftest import temporary_database
from tests.store import samples
from tests.webhooks.shop import Shop

CALLER = Caller(method="test")
ANSWER_SECONDS_MAX = 120.0
"""Longer than any machine pauses: a shop that answers is never taken for one that is silent."""


class Time:
    """A clock that stands until it is moved. It begins at the real time, by which receivers judge signatures."""

    def __init__(self) -> None:
        self.now = int(time.time())

    def __call__(self) -> int:
        return self.now


class Process:
    """One server process, as far as webhooks are concerned."""

    def __init__(self, store: Store, account_id: str, clock: Time, **fields: Any) -> None:
        self.store = store
        self.account_id = account_id
        self.clock = clock
        self.engine = Engine(store, BuiltInGateway(store, GatewayRow), allow_private_webhooks=True)
        receivers = fields.pop("receivers", None) or Receivers(
            allow_private=True, seconds_max=fields.pop("seconds_max", ANSWER_SECONDS_MAX)
        )
        fields = {"now": clock, "chance": lambda: 0.5, **fields}
        self.dispatcher = WebhookDispatcher(store, self.engine.bell, self.engine.webhooks, receivers, **fields)

    async def close(self) -> None:
        await self.dispatcher.close(2)
        await self.engine.close(2)

    async def execute(self, command: c.Command) -> Any:
        """The result of a command. Raises refusals."""
        return (await self.engine.execute(self.account_id, command, CALLER)).result

    async def endpoint(self, url: str, *event_types: str, shop: Shop | None = None) -> WebhookEndpoint:
        """A new endpoint, whose secret the shop learns."""
        made = await self.execute(c.CreateWebhookEndpoint(url=url, event_types=event_types))
        assert isinstance(made, NewSecret)
        if shop is not None:
            shop.secrets.append(await self.engine.webhooks.secret(self.account_id, made.endpoint.id, made.number))
        return made.endpoint

    async def tell(self, *types: str, quiet: bool = False) -> None:
        """Append events of these types, all about products."""
        cause = Cause(kind="rpc", method="test")
        told = [Event(name, samples.NOW, None, samples.product(), None, cause) for name in types]
        rows = [EventRow(r.type, r.customer, r.object_id, r.created, r.payload, quiet) for r in self._rows(told)]
        async with self.store.transaction(self.account_id) as unit:
            await unit.open()
            await unit.save((), rows)
        self.engine.bell.ring(self.account_id)

    def _rows(self, told: Sequence[Event]) -> list[EventRow]:
        return event_rows(self.account_id, told)

    async def work(self) -> None:
        """Make all deliveries, and try once what is due."""
        await self.dispatcher.make()
        await self.dispatcher.look()
        await self.dispatcher.idle()

    async def deliveries(self, **wanted: Any) -> list[WebhookDelivery]:
        """All deliveries, in the order of their events."""
        found: list[WebhookDelivery] = []
        after = None
        while True:
            async with self.store.view(self.account_id) as view:
                page = await view.page(WebhookDeliveryFilter(**wanted), limit=1000, after=after)
            found += page.items
            after = page.next
            if after is None:
                return sorted(found, key=lambda delivery: (delivery.position, delivery.endpoint))


@pytest.fixture(scope="session")
async def webhook_database_url(database_url: str) -> AsyncIterator[str]:
    """A database of its own: servers that other tests leave running would send these webhooks, too."""
    async with temporary_database(database_url) as url:
        await migrate(url)
        yield url


@pytest.fixture(scope="session")
async def store(webhook_database_url: str) -> AsyncIterator[Store]:
    """A store on that database."""
    opened = await Store.open(webhook_database_url, max_connections=8)
    yield opened
    await opened.close()


class OneAccount:
    """The store, but for its sweeps: other tests' webhooks stay where they are."""

    def __init__(self, store: Store, account_id: str) -> None:
        self._store = store
        self._account_id = account_id

    async def accounts_with_webhooks(self) -> list[str]:
        return [found for found in await self._store.accounts_with_webhooks() if found == self._account_id]

    async def webhook_endpoints_behind(self) -> list[tuple[str, str]]:
        return [found for found in await self._store.webhook_endpoints_behind() if found[0] == self._account_id]

    async def webhook_endpoints_due(self, now: int | None = None) -> list[tuple[str, str, int]]:
        return [found for found in await self._store.webhook_endpoints_due(now) if found[0] == self._account_id]

    async def account_ids(self) -> list[str]:
        return [self._account_id]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
async def account_id(store: Store) -> str:
    """The id of a new account."""
    account = samples.account()
    assert await store.create_account(account)
    return account.id


@pytest.fixture
def clock() -> Time:
    """The time of all processes."""
    return Time()


Make = Callable[..., Process]


@pytest.fixture
async def make(store: Store, account_id: str, clock: Time) -> AsyncIterator[Make]:
    """Makes processes."""
    made: list[Process] = []

    def make(**fields: Any) -> Process:
        made.append(Process(OneAccount(store, account_id), account_id, clock, **fields))  # type: ignore[arg-type]  # a store in all that matters
        return made[-1]

    yield make
    for process in made:
        await process.close()


@pytest.fixture
def process(make: Make) -> Process:
    """A process."""
    return make()


@pytest.fixture
async def new_shop() -> AsyncIterator[Callable[[], Awaitable[Shop]]]:
    """Opens shops."""
    opened: list[Shop] = []

    async def open_one() -> Shop:
        shop = Shop()
        await shop.open()
        opened.append(shop)
        return shop

    yield open_one
    for shop in opened:
        await shop.close()


@pytest.fixture
async def shop(new_shop: Callable[[], Awaitable[Shop]]) -> Shop:
    """A shop that takes everything, until it is told otherwise."""
    return await new_shop()


@pytest.fixture
async def administrator(webhook_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of the database."""
    connection = await asyncpg.connect(webhook_database_url)
    yield connection
    await connection.close()
