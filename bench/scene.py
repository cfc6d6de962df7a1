"""Accounts to measure on: customers with a card and a monthly subscription whose first month ends when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

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

AMOUNT = 3_100
MONTH_SECONDS = 31 * 86_400
_SAVED_AT_ONCE = 1_000
_CALLER = Caller(method="bench")

Due = Callable[[int, int], int]
"""When the first month of the subscription of this number ends, by the time that it is now."""


def due_now(_number: int, now: int) -> int:
    """All are due at once."""
    return now


async def open_engine(url: str) -> Engine:
    """An engine in this process, which does nothing by itself."""
    store = await Store.open(url)
    return Engine(store, BuiltInGateway(store, GatewayRow))


async def new_account(engine: Engine) -> tuple[str, str]:
    """An account and its monthly price."""
    account = await engine.create_account("bench")
    return account.id, await new_price(engine, account.id)


async def new_price(engine: Engine, account_id: str) -> str:
    """A monthly price of an account."""
    product = await engine.execute(account_id, c.CreateProduct(name="Gold"), _CALLER)
    made = c.CreatePrice(
        product=product.result.id,  # type: ignore[union-attr]  # a product
        currency="usd",
        unit_amount=Decimal(AMOUNT),
        recurring=Recurring(interval="month"),
    )
    price = await engine.execute(account_id, made, _CALLER)
    return str(price.result.id)  # type: ignore[union-attr]  # a price


async def fill(engine: Engine, account_id: str, price: str, count: int, due: Due = due_now) -> None:
    """So many subscriptions, each with its customer and card, without any past."""
    for begun in range(0, count, _SAVED_AT_ONCE):
        async with engine.store.transaction(account_id) as unit:
            opening = await unit.open()
            numbers = range(begun, min(begun + _SAVED_AT_ONCE, count))
            await unit.save([(None, _book(engine, price, due(number, opening.now))) for number in numbers])


def _book(engine: Engine, price: str, ends: int) -> Book:
    """A customer without an e-mail address, so that no letters are written while something else is measured."""
    customer_id, subscription_id = engine.new_id("cus"), engine.new_id("sub")
    started = ends - MONTH_SECONDS
    method = PaymentMethod(
        id=engine.new_id("pm"), created=started, customer=customer_id, type="card", token="pm_card_visa"
    )
    customer = Customer(
        id=customer_id,
        created=started,
        invoice_prefix=customer_id[-8:].upper(),
        name="Some One",
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
        billing_cycle_anchor=ends,
        current_period_start=started,
        current_period_end=ends,
    )
    return Book(
        customer=customer,
        payment_methods={method.id: method},
        subscriptions={subscription_id: subscription},
    )
