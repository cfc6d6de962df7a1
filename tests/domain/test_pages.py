"""Decisions about the account's pages: settings, products and prices."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.account import Account, EmailSettings, Settings
from billing_server.domain.catalog import Catalog, Price, Product, Recurring
from billing_server.domain.errors import (
    AlreadyExists,
    Conflict,
    DomainError,
    InvalidArgument,
    ResourceMissing,
    WrongState,
)
from billing_server.domain.event import Cause
from billing_server.domain.pages import PagesDecision, decide_pages, is_about_pages
from billing_server.domain.turn import Pages

NOW = 1_750_000_000
CAUSE = Cause(kind="rpc", method="billing.v1.CatalogService/CreatePrice")

GOLD = Product(id="prod_gold", created=1, name="Gold", default_price="price_gold", metadata={"a": "1", "b": "2"})
IRON = Product(id="prod_iron", created=2, name="Iron", active=False)
MONTHLY = Price(
    id="price_gold",
    created=3,
    product="prod_gold",
    currency="usd",
    type="recurring",
    unit_amount=Decimal(1000),
    recurring=Recurring(interval="month"),
    lookup_key="gold",
    version=4,
)
OLD = Price(
    id="price_old",
    created=4,
    product="prod_gold",
    currency="usd",
    unit_amount=Decimal(1),
    active=False,
    lookup_key="old",
)
ONCE = Price(id="price_once", created=5, product="prod_iron", currency="usd", unit_amount=Decimal(500))
ACCOUNT = Account(id="acct_1", created=0, name="Acme", settings=Settings(exchange_rates={"eur": Decimal("1.08")}))
PAGES = Pages(
    account=ACCOUNT,
    catalog=Catalog({item.id: item for item in (GOLD, IRON)}, {item.id: item for item in (MONTHLY, OLD, ONCE)}),
    version=7,
)


def ids() -> Callable[[str], str]:
    """Ids that count."""
    counter = count(1)
    return lambda prefix: f"{prefix}_{next(counter)}"


def decided(command: c.Command) -> PagesDecision:
    """What a command leads to on the pages above."""
    return decide_pages(PAGES, command, now=NOW, new_id=ids(), cause=CAUSE)


def told(decision: PagesDecision) -> list[tuple[str, Any]]:
    """The types of the events and what was before."""
    for event in decision.events:
        assert (event.created, event.customer, event.cause) == (NOW, None, CAUSE)
    return [(event.type, event.previous_attributes) for event in decision.events]


def test_settings_change_with_an_event_that_carries_the_account() -> None:
    decision = decided(c.UpdateSettings(upcoming_renewal_days=3, emails=EmailSettings(receipt=False), etag="v1"))
    account = decision.account
    assert account is not None
    assert (account.version, account.settings.upcoming_renewal_days, account.settings.emails.receipt) == (2, 3, False)
    assert account.settings.exchange_rates == ACCOUNT.settings.exchange_rates
    assert told(decision) == [
        ("account.updated", {"settings": {"upcoming_renewal_days": 7, "emails": {"receipt": True}}})
    ]
    assert decision.events[0].object is account
    assert decision.result is account
    assert (decision.products, decision.prices) == ((), ())


def test_exchange_rates_are_told_by_key() -> None:
    decision = decided(c.UpdateSettings(exchange_rates={"eur": Decimal("1.09"), "gbp": Decimal("1.3")}))
    assert told(decision) == [
        ("account.updated", {"settings": {"exchange_rates": {"eur": Decimal("1.08"), "gbp": None}}})
    ]


def test_a_new_default_currency_comes_with_its_rates() -> None:
    decision = decided(c.UpdateSettings(default_currency="eur", exchange_rates={"usd": Decimal("0.92")}))
    assert decision.account is not None
    assert decision.account.settings.default_currency == "eur"


def test_a_product_is_created() -> None:
    decision = decided(c.CreateProduct(name="Silver", unit_label="seat", metadata={"a": "1", "gone": ""}))
    product = Product(id="prod_1", created=NOW, name="Silver", unit_label="seat", metadata={"a": "1"})
    assert decision.products == (product,)
    assert decision.result == product
    assert told(decision) == [("product.created", None)]


def test_a_product_changes_and_its_metadata_is_merged() -> None:
    decision = decided(
        c.UpdateProduct(id="prod_gold", name="Gold 2", default_price=None, metadata={"a": "", "c": "3"}, etag="v1")
    )
    product = msgspec.structs.replace(GOLD, name="Gold 2", default_price=None, metadata={"b": "2", "c": "3"}, version=2)
    assert decision.products == (product,)
    assert told(decision) == [
        ("product.updated", {"name": "Gold", "default_price": "price_gold", "metadata": {"a": "1", "c": None}})
    ]


@pytest.mark.parametrize(
    ("recurring", "type_"), [(None, "one_time"), (Recurring(interval="year"), "recurring")], ids=["once", "yearly"]
)
def test_the_type_of_a_price_follows_from_its_recurrence(recurring: Recurring | None, type_: str) -> None:
    decision = decided(
        c.CreatePrice(
            product="prod_gold", currency="eur", unit_amount=Decimal("0.5"), recurring=recurring, lookup_key="new"
        )
    )
    [price] = decision.prices
    assert (price.id, price.type, price.currency, price.unit_amount) == ("price_1", type_, "eur", Decimal("0.5"))
    assert (price.product, price.recurring, price.lookup_key, price.created) == ("prod_gold", recurring, "new", NOW)
    assert decision.result is price
    assert told(decision) == [("price.created", None)]


def test_an_inactive_product_may_get_a_price() -> None:
    assert decided(c.CreatePrice(product="prod_iron", currency="usd", unit_amount=Decimal(1))).prices


def test_a_new_price_takes_a_lookup_key_over() -> None:
    decision = decided(
        c.CreatePrice(
            product="prod_gold",
            currency="usd",
            unit_amount=Decimal(1),
            lookup_key="gold",
            transfer_lookup_key=True,
        )
    )
    loser, price = decision.prices
    assert (loser.id, loser.lookup_key, loser.version) == ("price_gold", None, 5)
    assert (price.id, price.lookup_key, price.version) == ("price_1", "gold", 1)
    assert told(decision) == [("price.updated", {"lookup_key": "gold"}), ("price.created", None)]


def test_a_price_takes_a_lookup_key_over() -> None:
    decision = decided(c.UpdatePrice(id="price_gold", lookup_key="old", transfer_lookup_key=True, etag="v4"))
    assert [(price.id, price.lookup_key, price.version) for price in decision.prices] == [
        ("price_old", None, 2),
        ("price_gold", "old", 5),
    ]
    assert told(decision) == [("price.updated", {"lookup_key": "old"}), ("price.updated", {"lookup_key": "gold"})]
    assert decision.result is decision.prices[1]


def test_a_price_changes() -> None:
    decision = decided(c.UpdatePrice(id="price_once", active=False, nickname="Once", metadata={"a": "1"}))
    assert decision.prices == (
        msgspec.structs.replace(ONCE, active=False, nickname="Once", metadata={"a": "1"}, version=2),
    )
    assert told(decision) == [("price.updated", {"active": True, "nickname": None, "metadata": {"a": None}})]


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (c.UpdateSettings(upcoming_renewal_days=7), ACCOUNT),
        (c.UpdateProduct(id="prod_gold", name="Gold", metadata={"a": "1", "z": ""}), GOLD),
        (c.UpdateProduct(id="prod_gold", default_price="price_gold"), GOLD),
        (c.UpdatePrice(id="price_gold", lookup_key="gold"), MONTHLY),
        (c.UpdatePrice(id="price_gold", lookup_key="gold", transfer_lookup_key=True), MONTHLY),
        (c.UpdatePrice(id="price_old", active=False), OLD),
    ],
)
def test_a_change_that_changes_nothing_leaves_all_as_it_is(command: c.Command, result: msgspec.Struct) -> None:
    assert decided(command) == PagesDecision(result=result)  # type: ignore[arg-type]


NEW_PRICE = c.CreatePrice(product="prod_gold", currency="usd", unit_amount=Decimal(1))

REFUSED = [
    (c.UpdateSettings(etag="v2"), Conflict, "etag_mismatch", "etag"),
    (c.UpdateSettings(default_currency="eur"), InvalidArgument, "parameter_missing", "exchange_rates"),
    (
        c.UpdateSettings(exchange_rates={"usd": Decimal(2)}),
        InvalidArgument,
        "parameter_invalid",
        "exchange_rates[usd]",
    ),
    (c.UpdateProduct(id="prod_none"), ResourceMissing, "resource_missing", "id"),
    (c.UpdateProduct(id="prod_gold", etag="v9"), Conflict, "etag_mismatch", "etag"),
    (c.UpdateProduct(id="prod_gold", default_price="x"), ResourceMissing, "resource_missing", "default_price"),
    (
        c.UpdateProduct(id="prod_gold", default_price="price_once"),
        InvalidArgument,
        "parameter_invalid",
        "default_price",
    ),
    (c.UpdateProduct(id="prod_gold", default_price="price_old"), WrongState, "price_inactive", "default_price"),
    (
        c.UpdateProduct(id="prod_gold", metadata={str(key): "x" for key in range(49)}),
        InvalidArgument,
        "metadata_invalid",
        "metadata",
    ),
    (msgspec.structs.replace(NEW_PRICE, product="x"), ResourceMissing, "resource_missing", "product"),
    (
        msgspec.structs.replace(NEW_PRICE, lookup_key="gold"),
        AlreadyExists,
        "resource_already_exists",
        "lookup_key",
    ),
    (
        msgspec.structs.replace(NEW_PRICE, lookup_key="old"),
        AlreadyExists,
        "resource_already_exists",
        "lookup_key",
    ),
    (c.UpdatePrice(id="x"), ResourceMissing, "resource_missing", "id"),
    (c.UpdatePrice(id="price_gold", etag="v1"), Conflict, "etag_mismatch", "etag"),
    (c.UpdatePrice(id="price_once", lookup_key="old"), AlreadyExists, "resource_already_exists", "lookup_key"),
    (c.UpdatePrice(id="price_gold", active=False), WrongState, "price_in_use", "active"),
]


@pytest.mark.parametrize(("command", "error", "reason", "field"), REFUSED)
def test_refusals(command: c.Command, error: type[DomainError], reason: str, field: str) -> None:
    with pytest.raises(error) as refused:
        decided(command)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_only_commands_about_the_pages_are_decided_here() -> None:
    assert is_about_pages(NEW_PRICE)
    other = c.DeleteCustomer(id="cus_1")
    assert not is_about_pages(other)
    with pytest.raises(AssertionError, match="DeleteCustomer is not about the account's pages"):
        decided(other)
