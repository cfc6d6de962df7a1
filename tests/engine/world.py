"""A world around engines: a database, a bank, a time, and an account that sells something.

Engines of one world are processes of one server: each has its own store and gateway. None of them ticks by
itself; `work_off` does what a tick would do, and waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import asyncpg
import msgspec

from billing_server.domain import commands as c
from billing_server.domain.account import Account
from billing_server.domain.automation import AutomationRun
from billing_server.domain.catalog import Price, Product, Recurring
from billing_server.domain.customer import BalanceTransaction, Customer
from billing_server.domain.errors import DomainError
from billing_server.domain.invoice import Invoice
from billing_server.domain.message import Message
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.subscription import Subscription
from billing_server.engine.engine import Engine
from billing_server.engine.ids import IdSource
from billing_server.engine.work import Answer, Answered, Caller, Work
from billing_server.gateways.port import PaymentGateway
from billing_server.store.automation import AutomationRunFilter
from billing_server.store.customer import BalanceTransactionFilter
from billing_server.store.database import Database
from billing_server.store.event import StoredEvent
from billing_server.store.invoice import InvoiceFilter
from billing_server.store.message import MessageFilter
from billing_server.store.payment import PaymentAttemptFilter, RefundFilter
from billing_server.store.subscription import SubscriptionFilter
from tests.engine.bank import Bank, ScriptedGateway
from tests.engine.times import ManualTime, Stops, TimedStore

T = TypeVar("T")

CONNECT_SECONDS_MAX: Final = 60.0
SECONDS_MAX: Final = 120.0
"""Nothing in these tests takes longer, unless it hangs."""

END_SECONDS_MAX: Final = 20.0
"""A process that breaks off what is under way has ended by then; one that waits for a gateway that hangs has not."""

new_id: Final = IdSource()


class World:
    """What the engines of one test share."""

    def __init__(self, database_url: str, database: Database) -> None:
        self.database_url = database_url
        self.database = database
        self.time = ManualTime()
        self.bank = Bank()
        self.account_id = ""
        self.accounts: set[str] = set()
        self.price = ""
        self._running: dict[Engine, tuple[TimedStore, frozenset[asyncio.Task[Any]]]] = {}

    # --- processes

    async def process(
        self,
        *,
        stops: Stops | None = None,
        gateway: PaymentGateway | None = None,
        connections: int = 0,
        database_url: str | None = None,
    ) -> Engine:
        """One more process, which neither ticks nor listens before it is started.

        Processes share connections, because making them takes longer than most tests, unless they ask for
        `connections` of their own, perhaps by another way to the database.
        """
        others = frozenset(asyncio.all_tasks())
        database = self.database
        if connections:
            url = database_url or self.database_url
            database = await Database.open(
                url, min_connections=1, max_connections=connections, acquire_seconds_max=CONNECT_SECONDS_MAX
            )
        store = TimedStore(database, self.time, self.accounts, stops or Stops(), shared=not connections)
        engine = Engine(store, gateway or ScriptedGateway(self.bank, store.stops.at))
        self._running[engine] = (store, others)
        return engine

    def store_of(self, engine: Engine) -> TimedStore:
        """The store of a process."""
        return self._running[engine][0]

    async def end(self, engine: Engine, drain_seconds: float = 20.0) -> None:
        """End a process in order."""
        store, _ = self._running.pop(engine)
        await engine.close(drain_seconds)
        await store.close()

    async def kill(self, engine: Engine, *callers: asyncio.Task[Any]) -> None:
        """End a process as `kill -9` does: nothing of it runs on, and what it had not committed is gone.

        Only for tests with one process at a time; whatever task has appeared since belongs to it.
        """
        store, others = self._running.pop(engine)
        store.stops.reached.set()
        store.break_off()
        # What is in the middle of a query comes to its next step, and stays there.
        await asyncio.sleep(0.005)
        await within(_cancel_all(lambda: {*callers, *filter(of_the_engine, asyncio.all_tasks() - others)}))

    async def close(self) -> None:
        """End all processes that still run."""
        for engine in list(self._running):
            await self.end(engine, drain_seconds=0.05)

    async def open_account(self, engine: Engine, *, interval: str = "month", amount: int = 1000) -> None:
        """An account with one recurring price."""
        account: Account = await engine.create_account("Test", new_id("acct"))
        self.account_id = account.id
        self.accounts.add(account.id)
        self.price = await self.add_price(engine, interval=interval, amount=amount)

    async def add_price(self, engine: Engine, *, interval: str = "month", amount: int = 1000) -> str:
        """One more recurring price, in dollars."""
        product = await self.do(engine, c.CreateProduct(name="Plan"), Product)
        recurring = Recurring(interval=interval)  # type: ignore[arg-type]  # the tests name real intervals
        command = c.CreatePrice(product=product.id, currency="usd", unit_amount=Decimal(amount), recurring=recurring)
        return (await self.do(engine, command, Price)).id

    # --- commands

    async def ask(self, engine: Engine, command: c.Command, key: str | None = None) -> Answer:
        """Give a command as an RPC does, with an idempotency key or without."""
        return await engine.execute(self.account_id, command, caller(command, key))

    async def do(self, engine: Engine, command: c.Command, noun: type[T], key: str | None = None) -> T:
        """Give a command, and take its result."""
        result = (await self.ask(engine, command, key)).result
        assert isinstance(result, noun), result
        return result

    async def submit(self, engine: Engine, command: c.Command) -> Answered:
        """Put a command straight into the next batch, as the cashier does."""
        promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        return await engine.group.submit(self.account_id, Work(command, caller(command).cause, promise))

    async def customer(self, engine: Engine, token: str | None = "succeed", test_clock: str | None = None) -> str:
        """A customer who pays with a token."""
        created = await self.do(engine, c.CreateCustomer(name="Ada", test_clock=test_clock), Customer)
        if token is not None:
            await self.ask(engine, c.AttachPaymentMethod(customer=created.id, token=token, set_default=True))
        return created.id

    async def subscribe(self, engine: Engine, customer: str, key: str | None = None, **params: Any) -> Subscription:
        """A subscription to the account's price."""
        items = params.pop("items", (c.ItemParams(price=self.price),))
        command = c.CreateSubscription(customer=customer, items=items, **params)
        return await self.do(engine, command, Subscription, key)

    async def owe(self, engine: Engine, customer: str, amount: int = 1000) -> Invoice:
        """A draft that waits to be paid by hand."""
        item = c.CreateInvoiceItem(customer=customer, amount=amount, currency="usd", description="work")
        await self.ask(engine, item)
        command = c.CreateInvoice(customer=customer, currency="usd", pending_invoice_items_behavior="include")
        return await self.do(engine, command, Invoice)

    # --- time

    async def work_off(self, engine: Engine, *, rounds: int = 1) -> None:
        """What is due now, as ticks of this process would do it."""
        for _ in range(rounds):
            await within(engine.timekeeper.sweep())
            await within(engine.timekeeper.idle())

    async def pass_time(self, engine: Engine, seconds: int, *, step: int | None = None) -> None:
        """Let time pass, with a tick at its end, or after each step."""
        until = self.time.now + seconds
        while self.time.now < until:
            self.time.now = until if step is None else min(until, self.time.now + step)
            await self.work_off(engine)

    async def check_now(self, engine: Engine) -> None:
        """Have the gateway asked about all open outcomes at once, before their time."""
        for table in ("payment_attempts", "refunds", "books"):
            moved = f"UPDATE {table} SET check_at = $2 WHERE account_id = $1 AND check_at IS NOT NULL"
            await self.sql(moved, self.account_id, self.time.now)
        await self.work_off(engine)

    # --- looking

    async def attempts(self, engine: Engine, **wanted: Any) -> list[PaymentAttempt]:
        """Payment attempts, oldest first."""
        return await self._all(engine, PaymentAttemptFilter(**wanted))

    async def invoices(self, engine: Engine, **wanted: Any) -> list[Invoice]:
        """Invoices, oldest first."""
        return await self._all(engine, InvoiceFilter(**wanted))

    async def refunds(self, engine: Engine, **wanted: Any) -> list[Refund]:
        """Refunds, oldest first."""
        return await self._all(engine, RefundFilter(**wanted))

    async def subscriptions(self, engine: Engine, **wanted: Any) -> list[Subscription]:
        """Subscriptions, oldest first."""
        return await self._all(engine, SubscriptionFilter(**wanted))

    async def runs(self, engine: Engine, **wanted: Any) -> list[AutomationRun]:
        """Runs of automations, oldest first."""
        return await self._all(engine, AutomationRunFilter(**wanted))

    async def messages(self, engine: Engine, **wanted: Any) -> list[Message]:
        """E-mail messages, oldest first."""
        return await self._all(engine, MessageFilter(**wanted))

    async def _all(self, engine: Engine, wanted: Any) -> list[Any]:
        found: list[Any] = []
        cursor = None
        while True:
            async with engine.store.view(self.account_id) as view:
                page = await view.page(wanted, limit=500, after=cursor)
            found += page.items
            cursor = page.next
            if cursor is None:
                return found[::-1]

    async def get(self, engine: Engine, noun: type[T], identity: str) -> T:
        """An object as it now is."""
        async with engine.store.view(self.account_id) as view:
            return await view.get(noun, identity, "object")  # type: ignore[type-var]  # the tests ask for nouns

    async def events(self, engine: Engine, after: int = 0) -> list[StoredEvent]:
        """All events after a position."""
        found: list[StoredEvent] = []
        while True:
            async with engine.store.view(self.account_id) as view:
                page = await view.read_events(after=after, limit=2_000)
            found += page.events
            if page.scanned_to >= page.head:
                return found
            after = page.scanned_to

    async def balance_transactions(self, engine: Engine, customer: str) -> list[BalanceTransaction]:
        """What moved a customer's balance, oldest first."""
        return await self._all(engine, BalanceTransactionFilter(customer=customer))

    async def asked_the_gateway(self, times: int = 1) -> None:
        """Wait until so many charges have reached the bank."""
        async with asyncio.timeout(SECONDS_MAX):
            async with self.bank.arrived:
                await self.bank.arrived.wait_for(lambda: len(self.bank.requests) >= times)

    async def end_detached(self, engine: Engine) -> None:
        """Wait for what callers have left behind."""
        while engine._detached:
            await within(asyncio.wait(engine._detached))

    async def lock_book(self, customer: str) -> asyncpg.Connection:
        """Hold a customer's book, as another process would, until the connection is closed."""
        connection = await asyncpg.connect(self.database_url)
        await connection.execute("BEGIN")
        query = "SELECT FROM books WHERE account_id = $1 AND customer = $2 FOR UPDATE"
        await connection.execute(query, self.account_id, customer)
        return connection

    async def somebody_waits(self) -> bool:
        """Whether a connection to this database waits for a lock that another one holds."""
        blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pg_blocking_pids(pid) <> '{}'"
        return bool(await self.sql(blocked))

    async def sql(self, statement: str, *parameters: object) -> list[asyncpg.Record]:
        """A statement as the owner of the database, past everything."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement, *parameters))
        finally:
            await connection.close()


async def _cancel_all(found: Callable[[], set[asyncio.Task[Any]]]) -> None:
    """Cancel tasks, and those that they begin when they are canceled and wait for, until none is left."""
    canceled: set[asyncio.Task[Any]] = set()
    while tasks := {task for task in found() if not task.done()}:
        for task in tasks - canceled:
            task.cancel()
        canceled |= tasks
        await asyncio.wait(tasks, timeout=0.01)


def of_the_engine(task: asyncio.Task[Any]) -> bool:
    """Whether a task is not the test itself, nor the driver's own, which leads a shared connection back."""
    code = getattr(task.get_coro(), "cr_code", None)
    return task is not asyncio.current_task() and code is not None and "asyncpg" not in code.co_filename


def caller(command: c.Command, key: str | None = None) -> Caller:
    """A caller that keeps answers as JSON, and refusals by their reason."""
    return Caller(
        method=f"test/{type(command).__name__}",
        idempotency_key=key,
        request_hash=hashlib.sha256(repr(command).encode()).digest(),
        encode=_kept,
        encode_refusal=_refused,
    )


def _kept(result: msgspec.Struct, _now: int) -> bytes:
    return msgspec.json.encode(result)


def _refused(error: DomainError) -> bytes:
    return f"refused: {error.reason}".encode()


async def within(work: Awaitable[T], seconds: float = SECONDS_MAX) -> T:
    """Wait for what must not hang."""
    async with asyncio.timeout(seconds):
        return await work


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def outcomes(*work: Awaitable[Any]) -> Sequence[Any]:
    """What became of work done side by side: results and errors."""
    return await within(asyncio.gather(*work, return_exceptions=True))


async def collected(stream: AsyncIterator[T]) -> list[T]:
    """All that a stream has to tell."""
    return [item async for item in stream]
