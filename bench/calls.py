"""Calls over gRPC by 64 callers: CreateSubscription with immediate payment, Get and List."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import grpc

from bench import served
from bench.measure import Call, Figure, Pace, pace, parent_of, peak_megabytes, processor_seconds
from billing.v1.catalog_model_pb2 import INTERVAL_MONTH
from billing.v1.catalog_service_pb2 import CreatePriceRequest, CreateProductRequest
from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.subscription_model_pb2 import SUBSCRIPTION_STATUS_ACTIVE
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRequest,
    GetSubscriptionRequest,
    ListSubscriptionsRequest,
)
from billing_client import BillingClient

CALLERS = 64
PAGE_SIZE = 20
_ROWS = 12
"""How many rows a creation writes, those that it writes twice counted twice."""

_CREATION = "CreateSubscription, paid at once, 64 callers"


async def creates(url: str, customers: int, seconds: float, repeat: int) -> list[Figure]:
    """Create for `seconds`, `repeat` times, beside both floors. No letters are written: customers have no address."""
    against_echo = Figure(_CREATION, "echo of the same sizes", aim=0.45)
    against_rows = Figure(_CREATION, "a transaction and a statement per row", aim=3)
    slowest = Figure(f"{_CREATION}: p99", "echo's p99", unit="ms", aim=4, at_most=True)
    memory = Figure("memory of the server under these calls", "", unit="MB", aim=250, at_most=True)
    async with served.engine(url) as server, BillingClient(server.target, server.key, timeout_seconds=60) as client:
        price = await new_price(client)
        ids = await new_customers(client, customers)
        connection = await asyncpg.connect(url)
        postgres = parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
        create, sizes = await _create(client, ids, price)
        for _ in range(repeat):
            before, busy = await _paid(connection), (processor_seconds(server.pid), processor_seconds(postgres))
            engine = await pace(seconds, create, CALLERS)
            spent = (processor_seconds(server.pid) - busy[0], processor_seconds(postgres) - busy[1])
            _check(engine.calls, await _paid(connection) - before)
            async with served.echo(*sizes) as echo_call:
                echo = await pace(seconds, echo_call, CALLERS)
            against_echo.add(
                engine.rate,
                echo.rate,
                engine_us=spent[0] / engine.calls * 1e6,
                postgres_us=spent[1] / engine.calls * 1e6,
            )
            against_rows.add(engine.rate, (await _rows(url, seconds)).rate)
            slowest.add(engine.p99, echo.p99)
        memory.add(peak_megabytes(server.pid))
        await connection.close()
    return [against_echo, against_rows, slowest, memory]


async def reads(url: str, subscriptions: int, seconds: float, repeat: int) -> list[Figure]:
    """GetSubscription by id, and ListSubscriptions by pages of 20, beside echoes of the same sizes.

    Both sides are called in the same way, by bytes: how requests are made and answers read is the clients' affair.
    """
    get = Figure("GetSubscription, 64 callers", "echo of the same sizes", aim=0.6)
    listing = Figure(f"ListSubscriptions, pages of {PAGE_SIZE}", "echo of the same sizes", aim=0.3)
    async with served.engine(url) as server, BillingClient(server.target, server.key, timeout_seconds=60) as client:
        price = await new_price(client)
        customers = await new_customers(client, subscriptions)
        create, _ = await _create(client, customers, price)
        await _gathered(create, range(1, subscriptions))
        some = (await client.subscriptions.ListSubscriptions(_page(100))).subscriptions
        gets = [GetSubscriptionRequest(id=one.id) for one in some]
        page = await client.subscriptions.ListSubscriptions(_page(PAGE_SIZE))
        _check(PAGE_SIZE, len(page.subscriptions))
        connection = await asyncpg.connect(url)
        postgres = parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
        for figure, method, asked, told in (
            (get, "GetSubscription", gets, list(some)),
            (listing, "ListSubscriptions", [_page(PAGE_SIZE)], [page]),
        ):
            requests = [request.SerializeToString() for request in asked]
            async with grpc.aio.insecure_channel(server.target) as channel:
                ask = served.asked(channel, f"/billing.v1.SubscriptionService/{method}", server.key)
                answers = [await ask(request) for request in requests]
                read = [type(message).FromString(answer) for message, answer in zip(told, answers, strict=True)]
                _check(told, read)
                for _ in range(repeat):
                    busy = (processor_seconds(server.pid), processor_seconds(postgres))
                    engine = await pace(seconds, _checked(ask, requests, answers), CALLERS)
                    spent = (processor_seconds(server.pid) - busy[0], processor_seconds(postgres) - busy[1])
                    async with served.echo(len(requests[0]), len(answers[0]), server.key) as echo_call:
                        echo = await pace(seconds, echo_call, CALLERS)
                    figure.add(
                        engine.rate,
                        echo.rate,
                        engine_us=spent[0] / engine.calls * 1e6,
                        postgres_us=spent[1] / engine.calls * 1e6,
                    )
        await connection.close()
    return [get, listing]


def _checked(ask: Callable[[bytes], Awaitable[bytes]], requests: list[bytes], answers: list[bytes]) -> Call:
    """A call that sends one request after the other; nothing changes meanwhile, so the answers are known."""

    async def call(number: int) -> object:
        place = number % len(requests)
        answer = await ask(requests[place])
        _check(answers[place], answer)
        return answer

    return call


def _page(size: int) -> ListSubscriptionsRequest:
    return ListSubscriptionsRequest(page_size=size)


async def new_price(client: BillingClient) -> str:
    """A monthly price of 31.00."""
    product = await client.catalog.CreateProduct(CreateProductRequest(name="Gold"))
    request = CreatePriceRequest(product=product.id, currency="usd", unit_amount="3100")
    request.recurring.interval = INTERVAL_MONTH
    return (await client.catalog.CreatePrice(request)).id


async def new_customers(client: BillingClient, count: int) -> list[str]:
    """So many customers with a card."""
    made: list[str] = []

    async def customer(_: int) -> None:
        one = await client.customers.CreateCustomer(CreateCustomerRequest(name="Some One"))
        await client.customers.AttachPaymentMethod(
            AttachPaymentMethodRequest(customer=one.id, token="pm_card_visa", set_default=True)
        )
        made.append(one.id)

    await _gathered(customer, range(count))
    return made


async def _gathered(call: Callable[[int], Awaitable[object]], numbers: range) -> None:
    """All calls, as many at a time as there are callers."""
    waiting = iter(numbers)

    async def caller() -> None:
        for number in waiting:
            await call(number)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def _create(client: BillingClient, customers: list[str], price: str) -> tuple[Call, tuple[int, int]]:
    """The call that creates a subscription, and how large its request and its answer are."""

    async def create(number: int) -> object:
        request = CreateSubscriptionRequest(customer=customers[number % len(customers)])
        request.items.add(price=price)
        made = await client.subscriptions.CreateSubscription(request)
        _check(SUBSCRIPTION_STATUS_ACTIVE, made.status)
        return made

    request = CreateSubscriptionRequest(customer=customers[0])
    request.items.add(price=price)
    answer = await create(0)
    return create, (request.ByteSize(), answer.ByteSize())  # type: ignore[attr-defined]  # a message


async def _paid(connection: asyncpg.Connection) -> int:
    """How many first invoices are paid, by a charge that the gateway knows."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM invoices AS i JOIN payment_attempts AS a ON a.account_id = i.account_id "
            "AND a.invoice = i.id JOIN test_gateway_charges AS g ON g.account_id = a.account_id AND g.key = a.id "
            "WHERE i.status = 'paid' AND i.amount_paid = 3100 AND a.state = 'succeeded' AND g.effects = 1"
        )
    )


async def _rows(url: str, seconds: float) -> Pace:
    """Transactions of as many statements as one creation writes rows, 16 at a time."""
    pool = await asyncpg.create_pool(url, min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS bench_rows (id bigserial PRIMARY KEY, payload bytea)")

    async def call(_: int) -> object:
        async with pool.acquire() as connection, connection.transaction():
            for _ in range(_ROWS):
                await connection.execute("INSERT INTO bench_rows (payload) VALUES ($1)", bytes(400))
        return None

    try:
        return await pace(seconds, call, CALLERS)
    finally:
        await pool.close()


def _check(wanted: object, found: object) -> None:
    if wanted != found:
        raise SystemExit(f"there should be {wanted}, but there is {found}")
