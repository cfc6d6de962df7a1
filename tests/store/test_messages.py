"""Messages are kept with what caused them, claimed by one process at a time, and settled once."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from billing_server.domain.message import Message
from billing_server.store.message import MessageFilter, Tried
from billing_server.store.store import Store
from tests.store import samples
from tests.store.samples import NOW

LEASE = 60


async def stage(store: Store, account_id: str, *messages: Message) -> None:
    """Stage messages as a transaction does that changes nothing else."""
    async with store.transaction(account_id) as unit:
        await unit.open()
        await unit.save((), messages=messages)


async def read(store: Store, account_id: str, **wanted: Any) -> list[Message]:
    async with store.view(account_id) as view:
        return (await view.page(MessageFilter(**wanted), limit=100)).items


async def test_a_message_comes_back_as_it_was_staged(store: Store, account_id: str) -> None:
    message = samples.message(samples.customer(), locale="pt-BR", test_clock="clock_1")
    await stage(store, account_id, message)

    assert await read(store, account_id) == [message]


async def test_lists_go_by_customer_kind_and_state(store: Store, account_id: str) -> None:
    one, other = samples.customer(), samples.customer()
    first = samples.message(one, kind="trial_reminder")
    second = samples.message(one, created=NOW + 1, state="sent", due_at=None, settled_at=NOW + 1)
    third = samples.message(other)
    await stage(store, account_id, first, second, third)

    assert await read(store, account_id, customer=one.id) == [second, first]
    assert await read(store, account_id, kind="trial_reminder") == [first]
    assert await read(store, account_id, state="sent") == [second]


async def test_what_is_rolled_back_is_not_sent(store: Store, account_id: str) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        async with store.transaction(account_id) as unit:
            await unit.open()
            await unit.save((), messages=[samples.message(samples.customer())])
            raise RuntimeError("broken")

    assert await read(store, account_id) == []


async def test_due_messages_are_claimed_once_longest_due_first(store: Store, account_id: str) -> None:
    late, later = samples.message(samples.customer(), due_at=NOW), samples.message(samples.customer(), due_at=NOW + 5)
    ahead = samples.message(samples.customer(), due_at=NOW * 2)
    await stage(store, account_id, later, ahead, late)
    assert account_id in await store.accounts_with_due_messages()

    assert [message.id for message in await store.claim_messages(account_id, 1, LEASE)] == [late.id]
    claimed = await store.claim_messages(account_id, 10, LEASE)
    assert [(message.id, message.attempts) for message in claimed] == [(later.id, 1)]
    assert await store.claim_messages(account_id, 10, LEASE) == []
    assert account_id not in await store.accounts_with_due_messages()


async def test_many_claimers_share_the_messages(store: Store, account_id: str) -> None:
    messages = [samples.message(samples.customer()) for _ in range(40)]
    await stage(store, account_id, *messages)

    assert len(await store.claim_messages(account_id, 5, 0)) == 5, "not one more"
    found = await asyncio.gather(*(store.claim_messages(account_id, 5, LEASE) for _ in range(8)))
    ids = [message.id for part in found for message in part]
    assert len(ids) == len(set(ids))
    rest = await store.claim_messages(account_id, 40, LEASE)
    assert {message.id for message in (*rest, *(m for part in found for m in part))} == {m.id for m in messages}


async def test_a_claim_ends_with_its_lease(store: Store, account_id: str) -> None:
    await stage(store, account_id, samples.message(samples.customer()))

    (first,) = await store.claim_messages(account_id, 1, 0)
    (again,) = await store.claim_messages(account_id, 1, LEASE)
    assert (first.id, first.attempts, again.attempts) == (again.id, 1, 2)
    late = Tried(id=first.id, attempts=first.attempts)
    assert await store.settle_messages(account_id, [late]) == 0, "somebody else has it now"


async def test_settling(store: Store, account_id: str) -> None:
    await stage(store, account_id, *(samples.message(samples.customer()) for _ in range(3)))
    sent, wrong, later = await store.claim_messages(account_id, 3, LEASE)
    tried = [
        Tried(id=sent.id, attempts=1),
        Tried(id=wrong.id, attempts=1, error="550 no such user"),
        Tried(id=later.id, attempts=1, error="451 later", wait=30),
    ]

    assert await store.settle_messages(account_id, tried) == 3
    assert await store.settle_messages(account_id, tried[:2]) == 0, "settled once"
    found = {message.id: message for message in await read(store, account_id)}
    assert (found[sent.id].state, found[sent.id].error, found[sent.id].due_at) == ("sent", None, None)
    assert (found[wrong.id].state, found[wrong.id].error) == ("failed", "550 no such user")
    assert (found[later.id].state, found[later.id].error, found[later.id].settled_at) == ("due", "451 later", None)
    assert await store.claim_messages(account_id, 3, LEASE) == [], "not before its time"


async def test_old_ones_are_forgotten_when_they_are_settled(store: Store, account_id: str) -> None:
    old = samples.message(samples.customer(), state="sent", due_at=None, settled_at=NOW)
    young = samples.message(samples.customer(), state="sent", due_at=None, settled_at=NOW + 10)
    waiting = samples.message(samples.customer())
    await stage(store, account_id, old, young, waiting)

    assert await store.purge_messages(account_id, NOW + 5) == 1
    assert await store.purge_messages(account_id, NOW + 5) == 0
    assert {message.id for message in await read(store, account_id)} == {young.id, waiting.id}


async def test_messages_go_with_their_test_clock(store: Store, account_id: str) -> None:
    clock = samples.test_clock()
    owner = samples.customer(test_clock=clock.id)
    async with store.transaction(account_id) as unit:
        await unit.open()
        await unit.insert_test_clock(clock)
        await unit.save([(None, samples.book(owner))], messages=[samples.message(owner, test_clock=clock.id)])
    async with store.transaction(account_id) as unit:
        await unit.lock_test_clock(clock.id)
        await unit.delete_test_clock(clock.id)

    assert await read(store, account_id) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "sent"},
        {"due_at": None},
        {"settled_at": NOW},
        {"attempts": -1},
        {"kind": "advertisement"},
    ],
)
async def test_the_database_refuses_what_cannot_be(
    administrator: asyncpg.Connection, store: Store, account_id: str, wrong: dict[str, Any]
) -> None:
    from billing_server.store.errors import StoreCorrupted

    with pytest.raises(StoreCorrupted):
        await stage(store, account_id, samples.message(samples.customer(), **wrong))
