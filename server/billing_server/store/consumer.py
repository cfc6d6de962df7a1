"""How durable consumers are stored: what they want, who shares their work, how far they have come.

A connection and the database *meet* every few seconds: the connection renews its lease, stores how far it has come,
gives away what it should not have, and takes what nobody has. In between it only stores. Whatever it stores counts
only for shards that it still owns, so one that was taken for dead harms nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from billing_server.domain.consumer import SHARDS, Consumer, Parked, ShardState, subject_of
from billing_server.domain.errors import ResourceMissing
from billing_server.store import event as event_log
from billing_server.store.database import Connection
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

CONSUMERS: Final = Rows(Consumer, "consumer", "consumers", "consumer_row")
SHARD_STATES: Final = Rows(
    ShardState, "consumer_shard", "consumer_shards", "consumer_shard_row", keys=frozenset({"shard"})
)
PARKED: Final = Rows(Parked, "parked_event", "parked_events", "parked_event_row", keys=frozenset({"position"}))

PARKED_MAX: Final = 10_000
"""Parked events of one consumer; beyond, events that fail are tried again and again until there is room."""

_ADOPTED_AT_ONCE: Final = 500


class ConsumerFilter(Filter[Consumer], frozen=True, kw_only=True):
    """Which consumers to list: all."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer has come, as far as that is stored."""

    floor: int
    head: int
    pending: int
    parked: int
    connections: int
    delivered: int
    redelivered: int
    acknowledged: int


class ParkedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A parked event as it is listed. `parked_at` is real time."""

    event: Parked
    parked_at: int
    retrying: bool


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection brings along to a meeting: who it is, what it has done, and which shards it gives away."""

    consumer: str
    connection: str
    states: Sequence[ShardState] = ()
    parked: Sequence[Parked] = ()
    released: Sequence[int] = ()


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of what a connection wanted to store: the shards that it does not own any more."""

    lost: frozenset[int]
    parking_full: bool


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a meeting.

    `owned` are the shards that the connection owned before it took some more; `taken` are these, `subjects` those of
    their pending events, as far as these are kept. `retried` are parked events (shard and position) to be tried again.
    `oldest` is the position of the oldest event that is kept, or will be; `head` that of the last one.
    """

    consumer: Consumer
    now: int
    connections: int
    owned: frozenset[int]
    taken: list[ShardState]
    subjects: dict[int, str]
    retried: list[tuple[int, int]]
    oldest: int
    head: int
    parking_full: bool


async def create(connection: Connection, account_id: str, consumer: Consumer, position: int) -> None:
    """Keep a new consumer that begins behind a position. Raises AlreadyExists."""
    await connection.execute(CONSUMERS.queries["insert"], account_id, CONSUMERS.encode([consumer]))
    await connection.execute(SHARD_STATES.queries["insert"], account_id, consumer.id, position, SHARDS)


async def count(connection: Connection, account_id: str) -> int:
    """How many consumers the account has; whoever else creates one now waits until this transaction ends."""
    await connection.execute(CONSUMERS.queries["lock_head"], account_id)
    return int(await connection.fetchval(CONSUMERS.queries["count"], account_id))


async def lock(connection: Connection, account_id: str, name: str) -> Consumer:
    """The consumer, locked until the transaction ends. Raises ResourceMissing."""
    found = CONSUMERS.decode(await connection.fetch(CONSUMERS.queries["lock"], account_id, name))
    if not found:
        raise ResourceMissing("consumer", name, field="name")
    return found[0]


async def seek(connection: Connection, account_id: str, name: str, position: int) -> None:
    """Move a locked consumer behind a position; its connections find out when they meet."""
    await connection.execute(SHARD_STATES.queries["seek"], account_id, name, position)
    await connection.execute(CONSUMERS.queries["disband"], account_id, name)


async def progress(connection: Connection, account_id: str, names: Sequence[str]) -> dict[str, Progress]:
    """How far some consumers have come, by their names."""
    head = await event_log.head(connection, account_id)
    records = await connection.fetch(CONSUMERS.queries["progress"], account_id, list(names))
    return {
        name: Progress(
            floor=floor,
            head=head,
            pending=pending,
            parked=parked,
            connections=connections,
            delivered=delivered,
            redelivered=redelivered,
            acknowledged=acknowledged,
        )
        for name, floor, pending, parked, connections, delivered, redelivered, acknowledged in records
        if floor is not None
    }


async def parked_page(connection: Connection, account_id: str, name: str, before: int, limit: int) -> list[ParkedRow]:
    """Parked events before a position, the latest in the log first."""
    records = await connection.fetch(PARKED.queries["list"], account_id, name, before, limit)
    return [
        ParkedRow(
            event=Parked(position=position, shard=shard, tries=tries, reason=reason),
            parked_at=parked_at,
            retrying=retrying,
        )
        for position, shard, tries, reason, parked_at, retrying in records
    ]


async def retry(connection: Connection, account_id: str, name: str, positions: Sequence[int] | None) -> tuple[int, int]:
    """Ask for parked events (None: all) to be tried again; how many will be, and how many are no longer kept."""
    (record,) = await connection.fetch(PARKED.queries["retry"], account_id, name, positions)
    return record[0], record[1]


async def store(connection: Connection, account_id: str, share: Share) -> Stored:
    """Store how far a connection has come, and what it parks, for the shards that it still owns."""
    if not share.states:
        return Stored(lost=frozenset(), parking_full=False)
    records = await connection.fetch(
        SHARD_STATES.queries["save"],
        account_id,
        share.consumer,
        share.connection,
        SHARD_STATES.encode(share.states),
    )
    owned = {record[0] for record in records}
    parked = [event for event in share.parked if event.shard in owned]
    parking_full = False
    if parked:
        rows = PARKED.encode(parked)
        await connection.execute(PARKED.queries["insert"], account_id, share.consumer, rows)
        parking_full = await _is_parking_full(connection, account_id, share.consumer)
    return Stored(lost=frozenset(state.shard for state in share.states) - owned, parking_full=parking_full)


async def _is_parking_full(connection: Connection, account_id: str, name: str) -> bool:
    count: int = await connection.fetchval(PARKED.queries["count"], account_id, name)
    return count >= PARKED_MAX


async def meet(connection: Connection, account_id: str, share: Share, lease_seconds: float) -> Met:
    """Renew a connection's lease and settle what it has to work on. Raises ResourceMissing."""
    name, own = share.consumer, share.connection
    consumer = await lock(connection, account_id, name)
    queries = SHARD_STATES.queries
    await store(connection, account_id, share)
    if share.released:
        await connection.execute(queries["release"], account_id, name, own, list(share.released))
    await connection.execute(CONSUMERS.queries["bury"], account_id, name)
    await connection.execute(CONSUMERS.queries["renew"], account_id, name, own, lease_seconds)
    ((connections, now),) = await connection.fetch(CONSUMERS.queries["connections"], account_id, name)
    owned = {record[0] for record in await connection.fetch(queries["owned"], account_id, name, own)}
    adopted = await connection.fetch(queries["adopt"], account_id, name, own, _ADOPTED_AT_ONCE) if owned else []
    room = fair_share(connections) - len(owned)
    taken: list[ShardState] = []
    if room > 0 and not share.released:
        taken = SHARD_STATES.decode(await connection.fetch(queries["claim"], account_id, name, own, room))
    positions = [pending.position for state in taken for pending in state.pending]
    subjects = await event_log.at_positions(connection, account_id, positions) if positions else []
    head = await event_log.head(connection, account_id)
    oldest = await connection.fetchval(event_log.QUERIES["oldest"], account_id)
    return Met(
        consumer=consumer,
        now=now,
        connections=connections,
        owned=frozenset(owned),
        taken=taken,
        subjects={event.position: subject_of(event.customer, event.object_id) for event in subjects},
        retried=[(record[0], record[1]) for record in adopted],
        oldest=head + 1 if oldest is None else oldest,
        head=head,
        parking_full=await _is_parking_full(connection, account_id, name),
    )


def fair_share(connections: int) -> int:
    """How many shards a connection of so many may have."""
    return -(-SHARDS // connections)


async def leave(connection: Connection, account_id: str, share: Share) -> None:
    """Store how far a connection has come, give away all that it owns, and forget it."""
    await store(connection, account_id, share)
    await connection.execute(SHARD_STATES.queries["release_all"], account_id, share.consumer, share.connection)
    await connection.execute(CONSUMERS.queries["leave"], account_id, share.consumer, share.connection)
