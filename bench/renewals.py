"""Renewals: due books claimed, decided, and saved with invoice, events and next wake-up.

Floors, on the same PostgreSQL and the same tables: the very rows that the engine wrote, written again for another
account by one set-based statement per table; and one transaction with a statement per row for each renewal. Both
get their rows for nothing: they decide, number and serialize nothing.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import asyncpg

from bench.measure import Figure
from billing_server.domain import commands as c
from billing_server.domain.book import Book
from billing_server.domain.catalog import Recurring
from billing_server.domain.customer import Customer, PaymentMethod
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.engine.engine import Engine
from billing_server.engine.work import Caller
from billing_server.gateways.test import BuiltInGateway
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow

BATCH = 300
WORKERS = 2
SAVED_AT_ONCE = 1_000
MONTH = 31 * 86_400
ROWS_ONE_BY_ONE = 2_000

_CALLER = Caller(method="bench")


async def measure(url: str, subscriptions: int, repeat: int) -> list[Figure]:
    """Renew `subscriptions` due books `repeat` times, each beside both floors."""
    against_set = Figure("renewals: due books to draft invoices", "the same rows by INSERT … SELECT")
    against_rows = Figure("renewals: due books to draft invoices", "a transaction and a statement per row")
    for _ in range(repeat):
        account_id, rate = await _renew(url, subscriptions)
        connection = await asyncpg.connect(url)
        try:
            set_rate = await _floor_by_sets(connection, account_id)
            row_rate = await _floor_by_rows(connection, account_id)
        finally:
            await connection.close()
        for figure, floor in ((against_set, set_rate), (against_rows, row_rate)):
            figure.rates.append(rate)
            figure.floor_rates.append(floor)
    return [against_set, against_rows]


async def _renew(url: str, subscriptions: int) -> tuple[str, float]:
    store = await Store.open(url)
    engine = Engine(store, BuiltInGateway(store, GatewayRow))
    try:
        account = await engine.create_account("bench")
        price = await _price(engine, account.id)
        await _fill(engine, account.id, price, subscriptions)
        begun = time.perf_counter()
        await asyncio.gather(*(_work(engine, account.id) for _ in range(WORKERS)))
        seconds = time.perf_counter() - begun
        await _check(url, account.id, subscriptions)
        return account.id, subscriptions / seconds
    finally:
        await store.close()


async def _price(engine: Engine, account_id: str) -> str:
    product = await engine.execute(account_id, c.CreateProduct(name="Gold"), _CALLER)
    made = c.CreatePrice(
        product=product.result.id,  # type: ignore[union-attr]  # a product
        currency="usd",
        unit_amount=Decimal(3100),
        recurring=Recurring(interval="month"),
    )
    price = await engine.execute(account_id, made, _CALLER)
    return str(price.result.id)  # type: ignore[union-attr]  # a price


async def _work(engine: Engine, account_id: str) -> None:
    while (await engine.door.wake(account_id, limit=BATCH)).books:
        pass


async def _fill(engine: Engine, account_id: str, price: str, count: int) -> None:
    """Subscriptions whose first month ends now, each with its customer, card and paid first invoice's id."""
    for begun in range(0, count, SAVED_AT_ONCE):
        async with engine.store.transaction(account_id) as unit:
            opening = await unit.open()
            size = min(SAVED_AT_ONCE, count - begun)
            await unit.save([(None, _book(engine, price, opening.now)) for _ in range(size)])


def _book(engine: Engine, price: str, now: int) -> Book:
    customer_id, subscription_id = engine.new_id("cus"), engine.new_id("sub")
    started = now - MONTH
    method = PaymentMethod(
        id=engine.new_id("pm"), created=started, customer=customer_id, type="card", token="pm_card_visa"
    )
    customer = Customer(
        id=customer_id,
        created=started,
        invoice_prefix=customer_id[-8:].upper(),
        email="someone@example.com",
        currency="usd",
        default_payment_method=method.id,
        next_invoice_sequence=2,
    )
    subscription = Subscription(
        id=subscription_id,
        created=started,
        customer=customer_id,
        status="active",
        currency="usd",
        items=(SubscriptionItem(id=engine.new_id("si"), created=started, price=price),),
        interval="month",
        interval_count=1,
        start_date=started,
        billing_cycle_anchor=now,
        current_period_start=started,
        current_period_end=now,
    )
    return Book(
        customer=customer,
        payment_methods={method.id: method},
        subscriptions={subscription_id: subscription},
    )


async def _check(url: str, account_id: str, subscriptions: int) -> None:
    """A fast wrong result does not count: one draft of the right amount and two events for each."""
    connection = await asyncpg.connect(url)
    try:
        drafts = await connection.fetchval(
            "SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'draft' AND total = 3100", account_id
        )
        events = await connection.fetchval(
            "SELECT count(*) FROM events WHERE account_id = $1 AND type IN "
            "('invoice.created', 'customer.subscription.updated')",
            account_id,
        )
    finally:
        await connection.close()
    if (drafts, events) != (subscriptions, 2 * subscriptions):
        raise SystemExit(f"{drafts} drafts and {events} events for {subscriptions} renewals")


# --- floors


async def _columns(connection: asyncpg.Connection, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 "
        "AND is_generated = 'NEVER' AND column_name <> 'account_id' ORDER BY ordinal_position",
        table,
    )
    return [row[0] for row in rows]


async def _copy(connection: asyncpg.Connection, table: str, source: str, target: str, where: str = "true") -> None:
    names = await _columns(connection, table)
    columns = ", ".join(names)
    # An account's own id is its account's.
    values = ", ".join("$2" if table == "accounts" and name == "id" else name for name in names)
    await connection.execute(
        f"INSERT INTO {table} (account_id, {columns}) SELECT $2, {values} FROM {table} "
        f"WHERE account_id = $1 AND {where}",
        source,
        target,
    )


async def _prepare(connection: asyncpg.Connection, source: str, target: str) -> None:
    """An account with the same customers and subscriptions, without the renewals."""
    await _copy(connection, "accounts", source, target)
    await connection.execute("INSERT INTO event_heads (account_id, position) VALUES ($1, 0)", target)
    for table in ("products", "prices", "customers", "books", "payment_methods", "subscriptions"):
        await _copy(connection, table, source, target)
    await connection.execute("ANALYZE")


RENEWED = "billing_reason = 'subscription_cycle'"
TOLD = "type IN ('invoice.created', 'customer.subscription.updated')"


async def _floor_by_sets(connection: asyncpg.Connection, source: str) -> float:
    target = f"{source[:-2]}zz"
    await _prepare(connection, source, target)
    count = await connection.fetchval(f"SELECT count(*) FROM invoices WHERE account_id = $1 AND {RENEWED}", source)
    begun = time.perf_counter()
    async with connection.transaction():
        await _copy(connection, "invoices", source, target, RENEWED)
        for table in ("subscriptions", "books"):
            await connection.execute(f"UPDATE {table} SET wake_at = wake_at + 1 WHERE account_id = $1", target)
        await connection.execute("UPDATE event_heads SET position = $2 WHERE account_id = $1", target, 2 * count)
        await _copy(connection, "events", source, target, TOLD)
    seconds = time.perf_counter() - begun
    await _forget(connection, target)
    return float(count / seconds)


async def _floor_by_rows(connection: asyncpg.Connection, source: str) -> float:
    """One renewal a transaction: an invoice, two events, the subscription and the book, a statement each."""
    target = f"{source[:-2]}yy"
    await _prepare(connection, source, target)
    invoice_columns, event_columns = await _columns(connection, "invoices"), await _columns(connection, "events")
    invoices = await connection.fetch(
        f"SELECT {', '.join(invoice_columns)} FROM invoices WHERE account_id = $1 AND {RENEWED} LIMIT $2",
        source,
        ROWS_ONE_BY_ONE,
    )
    events = await connection.fetch(
        f"SELECT {', '.join(event_columns)} FROM events WHERE account_id = $1 AND {TOLD} ORDER BY position LIMIT $2",
        source,
        2 * ROWS_ONE_BY_ONE,
    )
    insert_invoice = await connection.prepare(_insert("invoices", target, invoice_columns))
    insert_event = await connection.prepare(_insert("events", target, event_columns))
    update_subscription = await connection.prepare(
        f"UPDATE subscriptions SET wake_at = wake_at + 1 WHERE account_id = '{target}' AND id = $1"
    )
    update_book = await connection.prepare(
        f"UPDATE books SET wake_at = wake_at + 1 WHERE account_id = '{target}' AND customer = $1"
    )
    begun = time.perf_counter()
    for index, invoice in enumerate(invoices):
        async with connection.transaction():
            await insert_invoice.fetch(*invoice)
            await update_subscription.fetch(invoice["subscription"])
            await update_book.fetch(invoice["customer"])
            await insert_event.fetch(*events[2 * index])
            await insert_event.fetch(*events[2 * index + 1])
    seconds = time.perf_counter() - begun
    await _forget(connection, target)
    return len(invoices) / seconds


def _insert(table: str, account_id: str, columns: list[str]) -> str:
    values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} (account_id, {', '.join(columns)}) VALUES ('{account_id}', {values})"


async def _forget(connection: asyncpg.Connection, account_id: str) -> None:
    tables = (
        "events", "invoices", "subscriptions", "payment_methods", "books", "customers", "prices", "products",
        "event_heads", "accounts",
    )  # fmt: skip
    for table in tables:
        await connection.execute(f"DELETE FROM {table} WHERE account_id = $1", account_id)
