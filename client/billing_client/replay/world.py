"""What of a replay is already there, found through the API alone: so a run that was cut off goes on.

The clock is known by its name, customers and subscriptions by the clock and by the row's id in their metadata,
prices by their lookup keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from billing.v1.catalog_model_pb2 import Interval, Price, Recurring
from billing.v1.catalog_service_pb2 import (
    CreatePriceRequest,
    CreateProductRequest,
    ListPricesRequest,
    ListProductsRequest,
)
from billing.v1.customer_service_pb2 import ListCustomersRequest
from billing.v1.subscription_model_pb2 import SubscriptionStatus
from billing.v1.subscription_service_pb2 import ListSubscriptionsRequest
from billing.v1.test_clock_model_pb2 import TestClock, TestClockStatus
from billing.v1.test_clock_service_pb2 import CreateTestClockRequest, ListTestClocksRequest
from billing_client.calls import idempotency_key
from billing_client.client import BillingClient
from billing_client.clocks import timestamp
from billing_client.pages import PAGE_SIZE_MAX
from billing_client.replay.plan import Plan
from billing_client.replay.rows import CURRENCY, Row

RUN_KEY = "replay"
"""Metadata key under which all objects of a run carry its name."""

ROW_KEY = "customerID"
"""Metadata key of a row's id; the column of that name."""

_PRODUCT_NAME = "Telco subscription"
_PRODUCT_MARK = "telco"
_LOOKUP_KEYS_AT_ONCE = 50


class WorldError(Exception):
    """The account holds something that does not fit to the replay."""


@dataclass(slots=True)
class Subscriber:
    """A row, and what of it is there: ids, "" for what is still missing."""

    row: Row
    customer: str = ""
    has_payment_method: bool = False
    subscription: str = ""
    canceled: bool = False


@dataclass(slots=True)
class World:
    """The state of a run."""

    clock: str
    time: int
    target: int | None
    subscribers: dict[str, Subscriber]
    prices: dict[int, str] = field(default_factory=dict)

    @property
    def customers_count(self) -> int:
        """Customers there are."""
        return sum(bool(subscriber.customer) for subscriber in self.subscribers.values())


async def find_world(client: BillingClient, plan: Plan) -> World:
    """What of the plan is there; a clock is made if there is none."""
    clock = await _find_clock(client, plan) or await _make_clock(client, plan)
    advancing = clock.status == TestClockStatus.TEST_CLOCK_STATUS_ADVANCING
    world = World(
        clock=clock.id,
        time=clock.frozen_time.seconds,
        target=clock.target_frozen_time.seconds if advancing else None,
        subscribers={row.customer_id: Subscriber(row) for row in plan.rows},
    )
    await _find_customers(client, world)
    await _find_subscriptions(client, world)
    return world


async def _find_clock(client: BillingClient, plan: Plan) -> TestClock | None:
    """The clock of the run; the oldest one should there be several, because that is where its customers are."""
    clocks = client.list_all(client.test_clocks.ListTestClocks, ListTestClocksRequest(), lambda page: page.test_clocks)
    found = [clock async for clock in clocks if clock.name == plan.name]
    return min(found, key=lambda clock: (clock.created.seconds, clock.id), default=None)


async def _make_clock(client: BillingClient, plan: Plan) -> TestClock:
    request = CreateTestClockRequest(name=plan.name, frozen_time=timestamp(plan.start))
    made = await client.test_clocks.CreateTestClock(request)
    return await _find_clock(client, plan) or made


async def _find_customers(client: BillingClient, world: World) -> None:
    request = ListCustomersRequest(test_clock=world.clock)
    async for page in client.pages(client.customers.ListCustomers, request):
        for customer in page.customers:
            subscriber = world.subscribers.get(customer.metadata[ROW_KEY])
            if subscriber is not None:
                subscriber.customer = customer.id
                subscriber.has_payment_method = bool(customer.default_payment_method)


async def _find_subscriptions(client: BillingClient, world: World) -> None:
    by_customer = {item.customer: item for item in world.subscribers.values() if item.customer}
    request = ListSubscriptionsRequest(test_clock=world.clock, include_ended=True)
    async for page in client.pages(client.subscriptions.ListSubscriptions, request):
        for subscription in page.subscriptions:
            subscriber = by_customer.get(subscription.customer)
            if subscriber is not None:
                subscriber.subscription = subscription.id
                subscriber.canceled = subscription.status == SubscriptionStatus.SUBSCRIPTION_STATUS_CANCELED


# --- prices


def lookup_key(cents: int) -> str:
    """The lookup key of a monthly price; runs share prices of equal amounts."""
    return f"telco-monthly-{CURRENCY}-{cents}"


async def find_prices(client: BillingClient, plan: Plan) -> dict[int, Price]:
    """The prices of the plan that are there already, by amount. Raises WorldError for one that is different."""
    wanted = {lookup_key(cents): cents for cents in plan.prices_cents}
    keys = list(wanted)
    found: dict[int, Price] = {}
    for start in range(0, len(keys), _LOOKUP_KEYS_AT_ONCE):
        request = ListPricesRequest(lookup_keys=keys[start : start + _LOOKUP_KEYS_AT_ONCE], page_size=PAGE_SIZE_MAX)
        for price in (await client.catalog.ListPrices(request)).prices:
            found[_checked(price, wanted[price.lookup_key])] = price
    return found


def _checked(price: Price, cents: int) -> int:
    """The amount of a price that is found by its lookup key."""
    recurring = price.recurring
    fits = (
        price.active
        and price.currency == CURRENCY
        and price.unit_amount == str(cents)
        and recurring.interval == Interval.INTERVAL_MONTH
        and recurring.interval_count in (0, 1)
    )
    if not fits:
        raise WorldError(
            f"the price {price.id} has the lookup key {price.lookup_key}, but it is not an active monthly price "
            f"of {cents} cents; give that lookup key to another price, or remove it"
        )
    return cents


async def find_product(client: BillingClient, prices: dict[int, Price]) -> str:
    """Id of the product that the prices belong to; it is made if there is none."""
    for price in prices.values():
        return price.product
    async for page in client.pages(client.catalog.ListProducts, ListProductsRequest(active=True)):
        for product in page.products:
            if product.metadata[RUN_KEY] == _PRODUCT_MARK:
                return product.id
    request = CreateProductRequest(name=_PRODUCT_NAME, metadata={RUN_KEY: _PRODUCT_MARK})
    made = await client.catalog.CreateProduct(request, metadata=idempotency_key("replay-telco-product"))
    return made.id


def price_request(product: str, cents: int) -> CreatePriceRequest:
    """The request for a monthly price."""
    return CreatePriceRequest(
        product=product,
        currency=CURRENCY,
        unit_amount=str(cents),
        recurring=Recurring(interval=Interval.INTERVAL_MONTH),
        lookup_key=lookup_key(cents),
    )
