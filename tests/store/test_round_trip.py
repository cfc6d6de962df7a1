"""Whatever the domain may put into a struct comes back the same from the database."""

from __future__ import annotations

import types
import typing
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_server.domain.account import Account, ApiKey
from billing_server.domain.book import Book
from billing_server.store.store import Store
from tests.store import samples

INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NUMBER = st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**9)
_SCALARS: dict[object, st.SearchStrategy[Any]] = {
    int: INT64,
    str: TEXT,
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    Decimal: NUMBER,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """All values of a field's type, as far as they may stand in it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint is type(None):
        return st.none()
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    return st.fixed_dictionaries(fields(hint)).map(lambda chosen: hint(**chosen))


def fields(struct: Any, *fixed: str) -> dict[str, st.SearchStrategy[Any]]:
    """Values of all fields of a struct but those that constraints tie to each other."""
    hints = typing.get_type_hints(struct)
    return {name: values(hints[name]) for name in struct.__struct_fields__ if name not in fixed}


IDENTITY = ("id", "customer", "test_clock")
FIXED = {
    "customer": (*IDENTITY, "invoice_prefix", "next_invoice_sequence"),
    "payment_method": IDENTITY,
    "balance_transaction": IDENTITY,
    "subscription": (
        *IDENTITY,
        *("status", "ended_at", "trial_end", "expires_at", "collection_method", "days_until_due"),
        *("current_period_start", "current_period_end", "interval_count"),
    ),
    "schedule": (
        *(*IDENTITY, "status", "current_phase", "subscription", "released_subscription"),
        *("canceled_at", "completed_at", "released_at"),
    ),
    "invoice": (
        *IDENTITY,
        *("status", "collection_method", "auto_advance", "number", "finalized_at", "paid_at", "voided_at"),
        *("amount_due", "amount_paid", "amount_remaining", "due_date", "marked_uncollectible_at"),
        *("attempt_count", "attempts_started", "retries_done"),
        *("pre_payment_credit_notes_amount", "post_payment_credit_notes_amount"),
    ),
    "invoice_item": (*IDENTITY, "period_start", "period_end"),
    "credit_note": (
        *(*IDENTITY, "amount", "status", "voided_at", "pre_payment_amount", "post_payment_amount"),
        *("refund_amount", "credit_amount", "out_of_band_amount"),
    ),
    "attempt": (
        *(*IDENTITY, "invoice", "number", "checks", "amount", "amount_refunded"),
        *("state", "check_at", "settled_at"),
    ),
    "run": (*IDENTITY, "status", "end_reason", "ended_at", "step", "retries_done"),
    "refund": (*IDENTITY, "amount", "checks", "status", "settled_at"),
}
"""By sample: the fields that stay as the sample has them, because constraints tie them to each other."""


def part(name: str) -> Any:
    """A new object of one kind, with the customer that it belongs to."""
    owner = samples.customer()
    if name == "customer":
        return owner, owner
    made = getattr(samples, name)
    if name in ("credit_note", "attempt"):
        return owner, made(samples.invoice(owner))
    if name == "refund":
        return owner, made(samples.attempt(samples.invoice(owner)))
    if name == "schedule":
        return owner, made(owner, status="released", released_at=samples.NOW)
    return owner, made(owner)


@pytest.mark.parametrize("name", FIXED)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_every_noun_comes_back_as_it_was(store: Store, account_id: str, name: str, data: st.DataObject) -> None:
    owner, item = part(name)
    chosen = data.draw(st.fixed_dictionaries(fields(type(item), *FIXED[name])))
    item = msgspec.structs.replace(item, **chosen)
    book: Book = samples.book(item) if name == "customer" else samples.book(owner, item)

    await samples.save_new(store, account_id, book)

    async with store.view(account_id) as view:
        assert await view.get_many(type(item), [item.id]) == [item]


@pytest.mark.parametrize("name", FIXED)
async def test_every_noun_can_be_changed(store: Store, account_id: str, name: str) -> None:
    owner, item = part(name)
    before = samples.book(item) if name == "customer" else samples.book(owner, item)
    await samples.save_new(store, account_id, before)
    changed = msgspec.structs.replace(item, version=2)
    after = (
        msgspec.structs.replace(before, customer=changed) if name == "customer" else samples.with_parts(before, changed)
    )

    async with store.transaction(account_id) as unit:
        await unit.open([owner.id])
        await unit.save([(before, after)])

    async with store.view(account_id) as view:
        assert await view.get_many(type(item), [item.id]) == [changed]


@settings(max_examples=20, deadline=None)
@given(chosen=st.fixed_dictionaries(fields(Account, "id")))
async def test_accounts_come_back_as_they_were(store: Store, chosen: dict[str, Any]) -> None:
    account = msgspec.structs.replace(samples.account(), **chosen)

    await store.create_account(account)

    async with store.view(account.id) as view:
        assert (await view.pages()).account == account


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_pages_come_back_as_they_were(store: Store, account_id: str, data: st.DataObject) -> None:
    product = samples.product()
    product = msgspec.structs.replace(product, **data.draw(st.fixed_dictionaries(fields(type(product), "id"))))
    price = samples.price(product)
    tied = ("id", "product", "type", "recurring", "billing_scheme", "tiers_mode", "lookup_key")
    price = msgspec.structs.replace(price, **data.draw(st.fixed_dictionaries(fields(type(price), *tied))))
    automation = samples.automation()
    kept = ("id", "trigger", "priority", "version", "runs_canceled_version")
    automation = msgspec.structs.replace(
        automation, **data.draw(st.fixed_dictionaries(fields(type(automation), *kept)))
    )

    async with store.transaction(account_id) as unit:
        await unit.open()
        version = await unit.save_pages(products=[product], prices=[price], automations=[automation])

    async with store.transaction(account_id) as unit:
        changed = await unit.load_pages(version - 1)
    assert (changed.products, changed.prices, changed.version) == ([product], [price], version)
    assert changed.automations == [automation]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
async def test_api_keys_come_back_as_they_were(store: Store, account_id: str, data: st.DataObject) -> None:
    chosen = data.draw(st.fixed_dictionaries(fields(ApiKey, "id")))
    key = ApiKey(id=samples.new_id("key"), **chosen)
    secret_hash = key.id.encode()

    async with store.transaction(account_id) as unit:
        await unit.insert_api_key(key, secret_hash)

    assert await store.find_api_key(secret_hash) == (account_id, key)
