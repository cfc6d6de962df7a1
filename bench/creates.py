"""CreateSubscription with immediate payment over gRPC, 64 callers at a time.

Floors in the same run: an echo RPC with messages of the same sizes, served by a process of its own like the
engine; and one transaction with a statement per row for the rows of one creation.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc

from bench.measure import Figure
from billing.v1.catalog_model_pb2 import INTERVAL_MONTH
from billing.v1.catalog_service_pb2 import CreatePriceRequest, CreateProductRequest
from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.subscription_model_pb2 import SUBSCRIPTION_STATUS_ACTIVE
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest
from billing_client import BillingClient

CALLERS = 64
CUSTOMERS = 2_000
_ROWS = 12


async def measure(url: str, seconds: float, repeat: int) -> list[Figure]:
    """Create for `seconds`, `repeat` times, beside both floors."""
    against_echo = Figure("CreateSubscription, paid at once, 64 callers", "an echo RPC of the same sizes")
    against_rows = Figure("CreateSubscription, paid at once, 64 callers", "a transaction and a statement per row")
    async with served(url) as (target, key), BillingClient(target, key, timeout_seconds=20) as client:
        customers, price = await _prepare(client)
        for _ in range(repeat):
            rate = await _rate(seconds, _create(client, customers, price))
            async with _echo() as call:
                echo_rate = await _rate(seconds, call)
            row_rate = await _rate_of_rows(url, seconds)
            for figure, floor in ((against_echo, echo_rate), (against_rows, row_rate)):
                figure.rates.append(rate)
                figure.floor_rates.append(floor)
    return [against_echo, against_rows]


@asynccontextmanager
async def served(url: str) -> AsyncIterator[tuple[str, str]]:
    """The engine as a process of its own; its address and key."""
    directory = Path(tempfile.mkdtemp(prefix="billing-bench-server-"))
    environment = {
        **os.environ,
        "BILLING_DATABASE_URL": url,
        "BILLING_DATA_DIR": str(directory),
        "BILLING_LISTEN": "127.0.0.1:50990",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "billing_server", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel("127.0.0.1:50990") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
        yield "127.0.0.1:50990", (directory / "api-key").read_text().strip()
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(directory, ignore_errors=True)


async def _prepare(client: BillingClient) -> tuple[list[str], str]:
    product = await client.catalog.CreateProduct(CreateProductRequest(name="Gold"))
    request = CreatePriceRequest(product=product.id, currency="usd", unit_amount="3100")
    request.recurring.interval = INTERVAL_MONTH
    price = await client.catalog.CreatePrice(request)

    async def customer() -> str:
        made = await client.customers.CreateCustomer(CreateCustomerRequest(email="someone@example.com"))
        await client.customers.AttachPaymentMethod(
            AttachPaymentMethodRequest(customer=made.id, token="pm_card_visa", set_default=True)
        )
        return str(made.id)

    customers: list[str] = []
    for _ in range(0, CUSTOMERS, CALLERS):
        customers += await asyncio.gather(*(customer() for _ in range(CALLERS)))
    return customers, price.id


Call = Callable[[int], Awaitable[object]]


def _create(client: BillingClient, customers: list[str], price: str) -> Call:
    async def call(number: int) -> object:
        request = CreateSubscriptionRequest(customer=customers[number % len(customers)])
        request.items.add(price=price)
        made = await client.subscriptions.CreateSubscription(request)
        if made.status != SUBSCRIPTION_STATUS_ACTIVE:
            raise SystemExit(f"a subscription is not active: {made}")
        return made

    return call


async def _rate(seconds: float, call: Call) -> float:
    """Calls per second of 64 callers that call one after the other."""
    done = 0
    begun = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await call(number)
            done += 1
            number += CALLERS

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return done / (time.perf_counter() - begun)


@asynccontextmanager
async def _echo() -> AsyncIterator[Call]:
    """An echo server as a process of its own; the call sends a request's bytes and gets a response's."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.echo", stdout=asyncio.subprocess.PIPE)
    try:
        if process.stdout is None:
            raise AssertionError("the echo server has no output")
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo: Any = channel.unary_unary("/bench.Echo/Echo")
            request = bytes(90)

            async def call(_: int) -> object:
                return await echo(request)

            yield call
    finally:
        process.terminate()
        await process.wait()


async def _rate_of_rows(url: str, seconds: float) -> float:
    """Transactions per second of as many statements as one creation writes rows, 16 at a time."""
    pool = await asyncpg.create_pool(url, min_size=16, max_size=16)
    async with pool.acquire() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_rows (id bigserial PRIMARY KEY, payload bytea)")

    async def call(_: int) -> object:
        async with pool.acquire() as connection, connection.transaction():
            for _ in range(_ROWS):
                await connection.execute("INSERT INTO bench_rows (payload) VALUES ($1)", bytes(400))
        return None

    try:
        return await _rate(seconds, call)
    finally:
        await pool.close()
