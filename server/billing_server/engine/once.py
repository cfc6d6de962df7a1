"""Changes outside of books, once for each idempotency key: accounts, API keys, test clocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from billing_server.domain.errors import invalid
from billing_server.domain.event import Event
from billing_server.engine.door import Door
from billing_server.engine.events import event_rows
from billing_server.engine.session import answer_bytes
from billing_server.engine.work import Answer, Caller
from billing_server.store.idempotency import IdempotencyRow
from billing_server.store.unit import Opening, Unit

Change = Callable[[Unit, Opening], Awaitable[tuple[msgspec.Struct, Sequence[Event]]]]
"""Changes something within a unit; its result and its events are kept by `once`."""


async def once(door: Door, account_id: str, caller: Caller, change: Change) -> Answer:
    """Carry out a change and keep its answer, or give the answer kept for the caller's key."""

    async def body(unit: Unit) -> tuple[Answer, bool]:
        opening = await unit.open((), keys_of(caller))
        earlier = earlier_answer(opening.idempotency, caller)
        if earlier is not None:
            return earlier, False
        result, events = await change(unit, opening)
        await unit.save((), event_rows(account_id, events), complete(caller, result, opening.now))
        return Answer(result, now=opening.now), bool(events)

    answer, told = await door.committed(account_id, body)
    if told:
        door.bell.ring(account_id)
    return answer


def keys_of(caller: Caller) -> list[str]:
    """The caller's idempotency key, if there is one."""
    return [] if caller.idempotency_key is None else [caller.idempotency_key]


def earlier_answer(known: Mapping[str, IdempotencyRow], caller: Caller) -> Answer | None:
    """What was answered to an earlier request with the caller's key. Raises InvalidArgument for another request."""
    row = known.get(caller.idempotency_key or "")
    if row is None:
        return None
    if row.request_hash != caller.request_hash or row.method != caller.method:
        raise invalid(
            "idempotency-key",
            "idempotency_mismatch",
            "this key was used with another request; use a new key for a new request",
        )
    return Answer(None, row.response)


def complete(caller: Caller, result: msgspec.Struct, now: int) -> list[IdempotencyRow]:
    """The answer as it is kept beside the caller's key; nothing without one."""
    if caller.idempotency_key is None:
        return []
    return [
        IdempotencyRow(
            key=caller.idempotency_key,
            method=caller.method,
            request_hash=caller.request_hash,
            state="complete",
            response=answer_bytes(caller, result, None, now),
            created=now,
        )
    ]
