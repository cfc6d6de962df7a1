"""Carrying a plan out: what is missing at each stop is done, the clock moves on to the next.

Every step may be cut off and repeated. What is there is found first; what is made carries an idempotency key
derived from the clock and the row; the clock itself says how far the run has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.invoice_model_pb2 import InvoiceStatus
from billing.v1.invoice_service_pb2 import ListInvoicesRequest, PayInvoiceRequest
from billing.v1.subscription_model_pb2 import (
    CollectionMethod,
    ProrationBehavior,
    Subscription,
    SubscriptionStatus,
)
from billing.v1.subscription_service_pb2 import (
    CancelSubscriptionRequest,
    CreateSubscriptionRequest,
    ItemParams,
)
from billing.v1.time_range_model_pb2 import TimeRange
from billing_client.calls import idempotency_key
from billing_client.client import BillingClient
from billing_client.clocks import timestamp
from billing_client.instants import format_seconds
from billing_client.replay.plan import DAYS_UNTIL_DUE, Plan, Stop
from billing_client.replay.world import (
    RUN_KEY,
    Subscriber,
    World,
    WorldError,
    find_prices,
    find_product,
    find_world,
    price_request,
)

GOOD_CARD = "pm_card_visa"

Item = TypeVar("Item")


class Watcher(Protocol):
    """Is told how the run comes along."""

    def phase(self, text: str, total: int) -> None:
        """Something begins that has so many steps."""

    def step(self, done: int = 1) -> None:
        """So many more steps are done."""

    def reached(self, at: int, stop: int, stops: int) -> None:
        """The clock stands at the stop of this number, counted from 1."""


async def replay(client: BillingClient, plan: Plan, concurrency: int, watcher: Watcher) -> World:
    """Carry the plan out, from wherever it stands. Raises BillingError, and WorldError where things do not fit."""
    world = await find_world(client, plan)
    run = _Run(client, plan, world, concurrency, watcher)
    await run.make_prices()
    if world.target is not None:
        await run.advance(world.target)
    for number, stop in enumerate(plan.stops, 1):
        if stop.at < world.time:
            continue
        if stop.at > world.time:
            await run.advance(stop.at)
        watcher.reached(stop.at, number, len(plan.stops))
        await run.work_at(stop)
    return world


class _Run:
    """The steps of one run."""

    def __init__(self, client: BillingClient, plan: Plan, world: World, concurrency: int, watcher: Watcher) -> None:
        self._client = client
        self._plan = plan
        self._world = world
        self._concurrency = concurrency
        self._watcher = watcher

    async def make_prices(self) -> None:
        """Make the monthly prices that are missing."""
        found = await find_prices(self._client, self._plan)
        missing = [cents for cents in self._plan.prices_cents if cents not in found]
        self._world.prices = {cents: price.id for cents, price in found.items()}
        if not missing:
            return
        product = await find_product(self._client, found)

        async def make(cents: int) -> None:
            price = await self._client.catalog.CreatePrice(
                price_request(product, cents), metadata=idempotency_key(f"replay/{product}/{cents}")
            )
            self._world.prices[cents] = price.id

        await self._each("prices", missing, make)

    async def advance(self, to: int) -> None:
        """Move the clock."""
        start = self._world.time
        self._watcher.phase(f"{format_seconds(start)[:10]} to {format_seconds(to)[:10]}", to - start)
        reached = start
        async for progress in self._client.advance_test_clock(self._world.clock, to):
            now = progress.frozen_time.seconds
            self._watcher.step(max(now - reached, 0))
            reached = max(now, reached)
        self._world.time = to

    async def work_at(self, stop: Stop) -> None:
        """Do what is planned for a stop and not done yet."""
        if stop.kind == "payment":
            await self._pay_checks(stop)
            return
        subscribers = [self._world.subscribers[row.customer_id] for row in stop.starting]
        begin = self._begin_later if stop.kind == "close" else self._begin
        await self._each("customers", [item for item in subscribers if not item.subscription], begin)
        leaving = [self._world.subscribers[row.customer_id] for row in stop.leaving]
        await self._each("cancellations", [item for item in leaving if not item.canceled], self._cancel)

    # --- beginning

    async def _begin(self, subscriber: Subscriber) -> None:
        """A customer whose first month begins now, and is paid now or by check."""
        await self._make_customer(subscriber)
        subscription = await self._subscribe(subscriber, self._subscription_request(subscriber))
        if subscription.start_date.seconds != self._world.time:
            raise WorldError(
                f"{subscription.id} of row {subscriber.row.customer_id} began at "
                f"{format_seconds(subscription.start_date.seconds)} instead of {format_seconds(self._world.time)}"
            )

    async def _begin_later(self, subscriber: Subscriber) -> None:
        """A customer without a month so far: the first one begins at the end date, and is never billed here."""
        await self._make_customer(subscriber)
        request = self._subscription_request(subscriber)
        request.billing_cycle_anchor.seconds = self._plan.end
        request.proration_behavior = ProrationBehavior.PRORATION_BEHAVIOR_NONE
        await self._subscribe(subscriber, request)

    async def _make_customer(self, subscriber: Subscriber) -> None:
        row = subscriber.row
        customers = self._client.customers
        if not subscriber.customer:
            request = CreateCustomerRequest(
                name=row.customer_id,
                test_clock=self._world.clock,
                metadata={**row.attributes, RUN_KEY: self._plan.name},
            )
            made = await customers.CreateCustomer(request, metadata=self._key(row.customer_id, "customer"))
            subscriber.customer = made.id
        if row.automatic and not subscriber.has_payment_method:
            attach = AttachPaymentMethodRequest(customer=subscriber.customer, token=GOOD_CARD, set_default=True)
            await customers.AttachPaymentMethod(attach, metadata=self._key(row.customer_id, "payment-method"))
            subscriber.has_payment_method = True

    def _subscription_request(self, subscriber: Subscriber) -> CreateSubscriptionRequest:
        request = CreateSubscriptionRequest(
            customer=subscriber.customer,
            items=[ItemParams(price=self._world.prices[subscriber.row.monthly_cents])],
            metadata={RUN_KEY: self._plan.name},
        )
        if subscriber.row.automatic:
            request.collection_method = CollectionMethod.COLLECTION_METHOD_CHARGE_AUTOMATICALLY
        else:
            request.collection_method = CollectionMethod.COLLECTION_METHOD_SEND_INVOICE
            request.days_until_due = DAYS_UNTIL_DUE
        return request

    async def _subscribe(self, subscriber: Subscriber, request: CreateSubscriptionRequest) -> Subscription:
        row = subscriber.row
        subscription = await self._client.subscriptions.CreateSubscription(
            request, metadata=self._key(row.customer_id, "subscription")
        )
        if subscription.status != SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE:
            status = SubscriptionStatus.Name(subscription.status)
            raise WorldError(f"{subscription.id} of row {row.customer_id} is {status} instead of active")
        subscriber.subscription = subscription.id
        return subscription

    # --- paying and leaving

    async def _pay_checks(self, stop: Stop) -> None:
        """The checks of all open invoices that were sent come in."""
        request = ListInvoicesRequest(
            status=InvoiceStatus.INVOICE_STATUS_OPEN,
            collection_method=CollectionMethod.COLLECTION_METHOD_SEND_INVOICE,
            created=TimeRange(start=timestamp(self._plan.start), end=timestamp(stop.at)),
        )
        pages = self._client.pages(self._client.invoices.ListInvoices, request)
        due = [
            invoice.id async for page in pages for invoice in page.invoices if invoice.test_clock == self._world.clock
        ]

        async def pay(invoice: str) -> None:
            await self._client.invoices.PayInvoice(
                PayInvoiceRequest(id=invoice, paid_out_of_band=True), metadata=self._key(invoice, "check")
            )

        await self._each("checks", due, pay)

    async def _cancel(self, subscriber: Subscriber) -> None:
        await self._client.subscriptions.CancelSubscription(
            CancelSubscriptionRequest(id=subscriber.subscription),
            metadata=self._key(subscriber.row.customer_id, "cancellation"),
        )
        subscriber.canceled = True

    def _key(self, subject: str, step: str) -> tuple[tuple[str, str], ...]:
        """The idempotency key of a step: the same whenever this run does it again, and only then."""
        return idempotency_key(f"{self._world.clock}/{subject}/{step}")

    async def _each(self, text: str, items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
        """Work on all items, so many at once. The first failure ends it."""
        waiting = list(items)
        if not waiting:
            return
        self._watcher.phase(f"{format_seconds(self._world.time)[:10]} {text}", len(waiting))
        following = iter(waiting)

        async def worker() -> None:
            for item in following:
                await work(item)
                self._watcher.step()

        workers = [asyncio.create_task(worker()) for _ in range(min(self._concurrency, len(waiting)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
