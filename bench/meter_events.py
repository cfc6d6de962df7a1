"""A million meter events by streaming, and the closing of the period after them.

Events have identifiers and come in batches, over gRPC, to an engine that is a process of its own; their messages
are made before the clock starts. Floor: the same rows written again for another account by one INSERT … SELECT a
table. The period of the customer with all the events is closed beside that of a customer without any.

    python -m bench.meter_events [--events 1000000] [--customers 1] [--streams 2] [--batch 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import asyncpg

from bench import served
from bench.measure import database
from billing.v1.catalog_model_pb2 import INTERVAL_MONTH, USAGE_TYPE_METERED
from billing.v1.catalog_service_pb2 import CreatePriceRequest, CreateProductRequest
from billing.v1.customer_service_pb2 import CreateCustomerRequest
from billing.v1.invoice_service_pb2 import ListInvoicesRequest
from billing.v1.meter_model_pb2 import METER_FORMULA_SUM, MeterEvent
from billing.v1.meter_service_pb2 import CreateMeterRequest, ReportMeterEventsRequest
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest
from billing.v1.test_clock_service_pb2 import CreateTestClockRequest
from billing_client import BillingClient

START = 1_735_689_607
"""2025-01-01T00:00:07: on no whole minute, so that single events must be read at both ends of the period."""

MONTH_SECONDS = 31 * 86_400
CLOSINGS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.meter_events", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=1, help="customers that the events are spread over")
    parser.add_argument("--streams", type=int, default=2, help="streams at a time")
    parser.add_argument("--batch", type=int, default=1_000, help="events in a message")
    options = parser.parse_args()
    with database() as url:
        asyncio.run(_measure(url, options.events, options.customers, options.streams, options.batch))


async def _measure(url: str, events: int, customers: int, streams: int, batch: int) -> None:
    async with (
        served.engine(url) as server,
        BillingClient(server.target, server.key, timeout_seconds=600) as client,
    ):
        price = await _price(client)
        busy = [await _Scene.make(client, price, customers if not number else 1) for number in range(2)]
        scene, idle = busy
        messages = [scene.messages(events, batch, stream, streams) for stream in range(streams)]
        begun = time.perf_counter()
        answers = await asyncio.gather(*(client.meters.ReportMeterEvents(_sent(part)) for part in messages))
        seconds = time.perf_counter() - begun
        if sum(answer.accepted for answer in answers) != events:
            raise SystemExit(f"not all events were accepted: {answers}")
        print(f"streamed        {events:,} events in {seconds:.1f} s: {events / seconds:,.0f} events/s")
        begun = time.perf_counter()
        answers = await asyncio.gather(*(client.meters.ReportMeterEvents(_sent(part[:20])) for part in messages))
        again = sum(answer.duplicates for answer in answers)
        print(f"sent again      {again:,} duplicates: {again / (time.perf_counter() - begun):,.0f} events/s")
        floor_seconds = await _floor(url)
        ratio = floor_seconds / seconds
        print(f"floor           INSERT … SELECT: {events / floor_seconds:,.0f} events/s, ratio {ratio:.2f}")
        for name, one, used in (("closing", scene, events // customers), ("closing idle", idle, 0)):
            print(f"{name:15} {await one.close(client, used) * 1000:,.0f} ms for a period with {used:,} events")


async def _price(client: BillingClient) -> str:
    product = await client.catalog.CreateProduct(CreateProductRequest(name="Calls"))
    meter = await client.meters.CreateMeter(
        CreateMeterRequest(display_name="Calls", event_name="calls", formula=METER_FORMULA_SUM)
    )
    request = CreatePriceRequest(product=product.id, currency="usd", unit_amount="1")
    request.recurring.interval = INTERVAL_MONTH
    request.recurring.usage_type = USAGE_TYPE_METERED
    request.recurring.meter = meter.id
    return (await client.catalog.CreatePrice(request)).id


class _Scene:
    """A test clock one second before the end of a month, and customers who pay for their usage."""

    def __init__(self, clock: str, customers: Sequence[str]) -> None:
        self.clock = clock
        self.customers = customers

    @classmethod
    async def make(cls, client: BillingClient, price: str, customers: int) -> _Scene:
        request = CreateTestClockRequest()
        request.frozen_time.seconds = START
        clock = (await client.test_clocks.CreateTestClock(request)).id
        made = []
        for _ in range(customers):
            customer = (await client.customers.CreateCustomer(CreateCustomerRequest(test_clock=clock))).id
            subscription = CreateSubscriptionRequest(customer=customer)
            subscription.items.add(price=price)
            await client.subscriptions.CreateSubscription(subscription)
            made.append(customer)
        await _advance(client, clock, START + MONTH_SECONDS - 1)
        return cls(clock, made)

    def messages(self, events: int, batch: int, stream: int, streams: int) -> list[ReportMeterEventsRequest]:
        """A stream's share of the events: spread over the month, in the order of time."""
        own = range(stream, events, streams)
        return [
            ReportMeterEventsRequest(events=[self._event(number, events) for number in own[first : first + batch]])
            for first in range(0, len(own), batch)
        ]

    def _event(self, number: int, events: int) -> MeterEvent:
        event = MeterEvent(
            event_name="calls",
            customer=self.customers[number % len(self.customers)],
            value=1,
            identifier=f"{number:08d}-6f0e-4c43-9a52-1d2e3f405162",
        )
        event.timestamp.seconds = START + number * MONTH_SECONDS // events
        return event

    async def close(self, client: BillingClient, used: int) -> float:
        """Seconds that it takes to move over the end of the period; the invoice must bill the usage."""
        seconds = await _advance(client, self.clock, START + MONTH_SECONDS)
        invoices = (await client.invoices.ListInvoices(ListInvoicesRequest(customer=self.customers[0]))).invoices
        if invoices[0].total != used:
            raise SystemExit(f"{invoices[0].total} was billed, not {used}")
        return seconds


async def _advance(client: BillingClient, clock: str, to: int) -> float:
    begun = time.perf_counter()
    async for _ in client.advance_test_clock(clock, to):
        continue
    return time.perf_counter() - begun


async def _sent(messages: Sequence[ReportMeterEventsRequest]) -> AsyncIterator[ReportMeterEventsRequest]:
    for message in messages:
        yield message


async def _floor(url: str) -> float:
    """Seconds for writing the same rows once more, for an account that nobody asks about."""
    connection = await asyncpg.connect(url)
    try:
        seconds = 0.0
        for table in ("meter_events", "meter_tallies"):
            names = await connection.fetchval(
                "SELECT string_agg(attname, ', ') FROM pg_attribute "
                "WHERE attrelid = $1::text::regclass AND attnum > 1 AND NOT attisdropped",
                table,
            )
            begun = time.perf_counter()
            await connection.execute(
                f"INSERT INTO {table} (account_id, {names}) SELECT 'acct_floor', {names} FROM {table}"
            )
            seconds += time.perf_counter() - begun
        return seconds
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
