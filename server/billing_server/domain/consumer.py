"""Durable consumers: what one wants, how its work is divided, and how far each division has come.

Customers are spread over a fixed number of shards by a hash. One connection at a time works on a shard, so the
order of a customer's events needs nobody to coordinate it. What is stored of a shard is a position and the few
positions below it that are not settled: nothing is written for an event that is delivered and acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from billing_server.domain.errors import LimitReached

CONSUMERS_MAX: Final = 100
"""Consumers of one account."""

SHARDS: Final = 32
"""How many connections of one consumer can work at once. Part of what is stored: it never changes."""

ACK_TIMEOUT_SECONDS_DEFAULT: Final = 30
ACK_TIMEOUT_SECONDS_MAX: Final = 3_600
UNACKNOWLEDGED_DEFAULT: Final = 1_000
UNACKNOWLEDGED_MAX: Final = 10_000
TRIES_DEFAULT: Final = 5
TRIES_MAX: Final = 100
BATCH_DEFAULT: Final = 100
BATCH_MAX: Final = 1_000


def check_number(consumers: int) -> None:
    """Refuse an account more consumers than it may have. Raises LimitReached."""
    if consumers > CONSUMERS_MAX:
        raise LimitReached(
            "account_max_consumers", f"an account has at most {CONSUMERS_MAX} consumers; delete one that is not needed"
        )


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A named reader of events; `id` is its name. `types` and `customer` say which events it wants."""

    id: str
    created: int
    types: tuple[str, ...] = ()
    customer: str | None = None
    ack_timeout_seconds: int = ACK_TIMEOUT_SECONDS_DEFAULT
    unacknowledged_max: int = UNACKNOWLEDGED_DEFAULT
    tries_max: int = TRIES_DEFAULT
    batch_max: int = BATCH_DEFAULT
    version: int = 1


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """An event below its shard's position that is not settled.

    `tries` counts those that ended badly. `due_at`, in UTC seconds of real time, is when it may be delivered
    again; None means at once.
    """

    position: int
    tries: int = 0
    due_at: int | None = None


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a shard has come: all its events up to `position` are settled, but for the pending ones.

    `floor` is the position up to which nothing is pending. The counters are totals when read, and what is to be
    added to them when saved.
    """

    shard: int
    position: int
    floor: int
    pending: tuple[Pending, ...] = ()
    delivered: int = 0
    redelivered: int = 0
    acknowledged: int = 0


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was tried too often."""

    position: int
    shard: int
    tries: int
    reason: str


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection asks for. None means as the consumer has it."""

    consumer: str
    batch_max: int | None = None
    unacknowledged_max: int | None = None
    heartbeat_seconds: int


class Declined(msgspec.Struct, frozen=True):
    """Events that could not be handled, how long to wait (0: not long), and why."""

    positions: Sequence[int]
    delay_seconds: int
    reason: str


class Extended(msgspec.Struct, frozen=True):
    """Events (None: all) that need more time (None: as much as at first)."""

    positions: Sequence[int] | None
    seconds: int | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer says of its events in one message."""

    acknowledged: Sequence[int] = ()
    through: int = 0
    declined: Sequence[Declined] = ()
    extended: Extended | None = None


def subject_of(customer: str | None, object_id: str) -> str:
    """What an event's order is kept by: its customer, or its object where there is none."""
    return object_id if customer is None else customer


@lru_cache(maxsize=65_536)
def shard_of(subject: str) -> int:
    """The shard of a customer or object. The store computes the same in SQL (`sql/event.sql`, filter `shards`)."""
    return hashlib.sha256(subject.encode()).digest()[0] % SHARDS
