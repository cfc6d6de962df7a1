"""The newest events of an account, read once for all of its streams.

A thousand streams that follow one account wait for the same events. One of them reads, the others take what it
has read from memory, so that a commit costs one query and not one for each stream. Who is further behind than
the tail reaches reads the log itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from billing_server.domain.consumer import shard_of, subject_of
from billing_server.domain.event import is_of_type
from billing_server.store.event import EVERYTHING, EventFilter, EventPage, StoredEvent
from billing_server.store.store import Store

EVENTS_MAX: Final = 2_000
BYTES_MAX: Final = 4_000_000
_READ_AT_ONCE: Final = 500


class Tails:
    """The tails of accounts, each kept for as long as somebody reads from it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tails: dict[str, Tail] = {}

    @contextlib.contextmanager
    def of(self, account_id: str) -> Iterator[Tail]:
        """The tail that all readers of an account share."""
        tail = self._tails.get(account_id)
        if tail is None:
            tail = self._tails[account_id] = Tail(self._store, account_id)
        tail.users += 1
        try:
            yield tail
        finally:
            tail.users -= 1
            if not tail.users:
                del self._tails[account_id]


class Tail:
    """Events from just after `low` up to `high`, without a gap; `high` is None before the first reading."""

    def __init__(self, store: Store, account_id: str) -> None:
        self._store = store
        self._account_id = account_id
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self.low = 0
        self.high: int | None = None
        self.users = 0

    @property
    def age(self) -> float:
        """Seconds since it was last read."""
        return time.monotonic() - self._read_at

    async def refresh(self) -> None:
        """Read what is new. Whatever was committed before this call is seen; who calls meanwhile shares the next."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._reading))
        # A stream that goes away must not take the reading from the others.
        await asyncio.shield(self._next)

    async def _read_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        self._reading, self._next = self._next, None
        await self._read()
        self._read_at = time.monotonic()

    async def _read(self) -> None:
        async with self._store.view(self._account_id) as view:
            if self.high is None:
                self.low = self.high = await view.head()
                return
            while True:
                page = await view.read_events(after=self.high, limit=_READ_AT_ONCE)
                self._append(page)
                if page.scanned_to >= page.head:
                    return

    def _append(self, page: EventPage) -> None:
        assert self.high is not None
        if len(page.events) != page.scanned_to - self.high:
            # Some were dropped before anybody read them; readers find that out in the log.
            self._events.clear()
            self._bytes, self.low = 0, page.scanned_to
        else:
            self._events.extend(page.events)
            self._bytes += sum(len(event.payload) for event in page.events)
        self.high = page.scanned_to
        while len(self._events) > EVENTS_MAX or self._bytes > BYTES_MAX:
            dropped = self._events.popleft()
            self._bytes -= len(dropped.payload)
            self.low = dropped.position

    def take(self, after: int, limit: int, wanted: EventFilter, until: int | None = None) -> EventPage | None:
        """What `read_events` would say of the log up to `high`; None when it begins before the tail does."""
        if self.high is None or after < self.low:
            return None
        last = self.high if until is None else min(self.high, until)
        newer: Iterator[StoredEvent] = islice(self._events, after - self.low, max(last, after) - self.low)
        if wanted != EVERYTHING:
            newer = (event for event in newer if _matches(event, wanted))
        events = list(islice(newer, limit))
        scanned_to = events[-1].position if len(events) == limit else max(last, after)
        return EventPage(events, scanned_to, self.high)


def _matches(event: StoredEvent, wanted: EventFilter) -> bool:
    """Whether the filter lets the event pass, as the log's own queries would have it."""
    if wanted.customer is not None and event.customer != wanted.customer:
        return False
    if wanted.object_ids and event.object_id not in wanted.object_ids:
        return False
    if wanted.shards is not None and shard_of(subject_of(event.customer, event.object_id)) not in wanted.shards:
        return False
    return not wanted.types or any(is_of_type(event.type, name) for name in wanted.types)
