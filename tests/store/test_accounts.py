"""An account's own pages, its API keys, and the answers it remembers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from billing_server.domain.account import Account, ApiKey, Settings
from billing_server.domain.errors import AlreadyExists, ResourceMissing
from billing_server.store.account import ApiKeyFilter
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from tests.store import samples
from tests.store.samples import NOW


async def test_an_account_is_created_once(store: Store) -> None:
    account = samples.account()

    assert await store.create_account(account)
    assert not await store.create_account(msgspec.structs.replace(account, name="Other"))
    async with store.view(account.id) as view:
        assert await view.account() == account


async def test_an_unknown_account_is_missing(store: Store) -> None:
    with pytest.raises(ResourceMissing):
        async with store.transaction("acct_none") as unit:
            await unit.open()
    with pytest.raises(ResourceMissing):
        async with store.view("acct_none") as view:
            await view.pages()


async def test_caches_reload_only_what_has_changed(store: Store, account_id: str) -> None:
    first, second = samples.product(), samples.product()
    price = samples.price(first)
    async with store.transaction(account_id) as unit:
        version = (await unit.open()).pages_version
        assert await unit.save_pages(products=[first, second], prices=[price]) == version + 1
    renamed = msgspec.structs.replace(second, name="Renamed")
    async with store.transaction(account_id) as unit:
        pages = await unit.load_pages(lock=True)
        account = msgspec.structs.replace(pages.account, settings=Settings(company_name="Company"))
        assert await unit.save_pages(account=account, products=[renamed]) == version + 2

    async with store.transaction(account_id) as unit:
        assert (await unit.open()).pages_version == version + 2
        changed = await unit.load_pages(version + 1)
    assert (changed.account, changed.products, changed.prices) == (account, [renamed], [])
    async with store.view(account_id) as view:
        assert (await view.pages()).products == [first, renamed]


async def test_a_lookup_key_names_one_price_and_may_move(store: Store, account_id: str) -> None:
    product = samples.product()
    first, second = samples.price(product, lookup_key="gold"), samples.price(product, lookup_key="gold")
    async with store.transaction(account_id) as unit:
        await unit.save_pages(products=[product], prices=[first])

    with pytest.raises(AlreadyExists) as refused:
        async with store.transaction(account_id) as unit:
            await unit.save_pages(prices=[second])
    assert refused.value.field == "lookup_key"

    async with store.transaction(account_id) as unit:
        await unit.save_pages(prices=[second, msgspec.structs.replace(first, lookup_key=None)])


async def test_an_invoice_prefix_names_one_customer(store: Store, account_id: str) -> None:
    await samples.save_new(store, account_id, samples.book(samples.customer(invoice_prefix="PREFIX")))

    with pytest.raises(AlreadyExists) as refused:
        await samples.save_new(store, account_id, samples.book(samples.customer(invoice_prefix="PREFIX")))
    assert refused.value.field == "invoice_prefix"


async def test_keys_are_listed_and_revoked(store: Store, account_id: str) -> None:
    made = [
        ApiKey(id=samples.new_id("key"), created=NOW + n, name="key", scopes=("a",), last_four="1234") for n in range(2)
    ]
    async with store.transaction(account_id) as unit:
        for key in made:
            await unit.insert_api_key(key, key.id.encode())
        revoked = msgspec.structs.replace(made[0], revoked_at=NOW)
        await unit.update_api_key(revoked)

    assert await store.find_api_key(made[0].id.encode()) == (account_id, revoked)
    async with store.view(account_id) as view:
        assert (await view.page(ApiKeyFilter(), limit=10)).items == [made[1], revoked]
        assert (await view.page(ApiKeyFilter(revoked=False), limit=10)).items == [made[1]]


def answer(key: str, **changes: object) -> IdempotencyRow:
    """The row of a key whose command is under way."""
    values = {"key": key, "method": "M", "request_hash": b"h", "state": "in_progress", "created": NOW}
    return IdempotencyRow(**{**values, **changes})  # type: ignore[arg-type]  # the values of the fields


async def test_answers_are_remembered_completed_and_purged(store: Store, account_id: str) -> None:
    first = answer("k1", resource="pa_1")
    async with store.transaction(account_id) as unit:
        assert (await unit.open((), ["k1"])).idempotency == {}
        await unit.save((), (), [first])
    done = answer("k1", state="complete", response=b"answer")
    async with store.transaction(account_id) as unit:
        assert (await unit.open((), ["k1", "k2"])).idempotency == {"k1": first}
        await unit.save((), (), [done, answer("k2", created=NOW + 10)])

    async with store.view(account_id) as view:
        assert await view.idempotency("k1") == done
        assert await view.idempotency("k3") is None
    assert await store.purge_idempotency(account_id, NOW + 5) == 1
    async with store.view(account_id) as view:
        assert await view.idempotency("k1") is None
        assert await view.idempotency("k2") is not None


async def test_a_key_that_is_used_twice_at_once_makes_one_try_again(store: Store, account_id: str) -> None:
    opened = asyncio.Barrier(2)

    async def use() -> str:
        async with store.transaction(account_id) as unit:
            await unit.open((), ["same"])
            await opened.wait()
            await unit.save((), (), [answer("same")])
        return "done"

    results = await asyncio.gather(use(), use(), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["StoreBusy", "str"]


async def test_the_test_gateway_keeps_the_first_outcome_of_a_key(store: Store, account_id: str) -> None:
    first = GatewayRow(key="pa_1", fingerprint=b"1", outcome=b"one", effects=1, created=NOW)
    second = GatewayRow(key="pa_1", fingerprint=b"1", outcome=b"two", effects=1, created=NOW + 1)

    for remember, find in (
        (store.remember_charges, store.find_charges),
        (store.remember_refunds, store.find_refunds),
    ):
        assert (await remember(account_id, [first]))["pa_1"].asked == 1
        again = (await remember(account_id, [second]))["pa_1"]
        assert (again.row, again.asked) == (first, 2)
        assert (await find(account_id, ["pa_1", "pa_2"])).keys() == {"pa_1"}


async def test_accounts_do_not_share_their_keys(store: Store, account_id: str) -> None:
    other: Account = samples.account()
    await store.create_account(other)
    for account in (account_id, other.id):
        async with store.transaction(account) as unit:
            await unit.open((), ["key"])
            await unit.save((), (), [answer("key")])
